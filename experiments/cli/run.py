"""`mfs run`: a scenario under each of its policies."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from experiments.cli.completion import fabric_names_like
from experiments.cli.endings import told_to_the_user
from experiments.cli.fabric_choice import chosen_fabric
from experiments.cli.options import (
    NewDirectory,
    Policies,
    ScenarioName,
    Seed,
    Settings,
    command_line,
)
from experiments.cli.streams import standard_output_kept_clean, stdout

if TYPE_CHECKING:
    from experiments.results.trace_window import Window


def run(
    scenario: ScenarioName,
    fabric: Annotated[
        str | None,
        typer.Option(
            help="The fabric: mininet, sim, cluster, or auto for mininet if it can run here.",
            autocompletion=fabric_names_like,
        ),
    ] = None,
    inventory: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The servers of --fabric cluster, as a YAML file."),
    ] = None,
    policy: Policies = None,
    settings: Settings = None,
    seed: Seed = None,
    out: NewDirectory = None,
    ceiling: Annotated[
        bool,
        typer.Option("--ceiling", help="Run the requests without a network, too: what no policy can exceed."),
    ] = False,
    trace_window: Annotated[
        str | None,
        typer.Option(
            "--trace-window",
            metavar="A:B",
            help="Show this part of the run in the traces, in model seconds. Default: the part with"
            " most of the requests that missed their SLO, if the whole run has too many events.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Policies simulated at once; default: the number of cores."),
    ] = None,
    retry: Annotated[
        int,
        typer.Option(
            min=0,
            max=9,
            metavar="N",
            help="Begin an emulated run again, up to N times, while it is not faithful and another scale"
            " would make it so.",
        ),
    ] = 0,
    elastic: Annotated[
        bool,
        typer.Option(
            "--elastic",
            help="If a rank or a server of --fabric cluster dies, begin the policy again without its unit.",
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the summary, and nothing else, on standard output."),
    ] = False,
) -> None:
    """Run a scenario: every policy on the same requests. Ends with a table and a report."""
    with told_to_the_user():
        from experiments.scenario.overrides import overrides_of
        from experiments.scenario.reading import load_scenario

        window = _window(trace_window)
        chosen = load_scenario(scenario, overrides_of(settings or (), policy or (), seed, fabric))

        # These take long to import, so they come after the options have been checked.
        from experiments.cli.preparation_display import estimating_shown, reading_shown
        from experiments.cli.progress_display import display_for
        from experiments.inventory.fabric import made_fabric
        from experiments.run.run import run_scenario
        from testbed.fabric import FabricName

        choice = chosen_fabric(chosen.fabric)
        chosen = chosen.model_copy(update={"fabric": choice.name})
        with (
            made_fabric(chosen, inventory, _warn, elastic=elastic) as made,
            standard_output_kept_clean(),
            display_for(Console(stderr=True)) as display,
            reading_shown(display),
            estimating_shown(display),
        ):
            cores = len(os.sched_getaffinity(0)) if made.name == FabricName.SIM else 1
            directory, summary = run_scenario(
                chosen,
                fabric=made,
                out=out,
                progress=display.update,
                command=command_line(),
                notes=[] if choice.note is None else [choice.note],
                warn=_warn,
                ceiling=ceiling,
                trace_window=window,
                jobs=jobs or cores,
                words=["mfs", *sys.argv[1:]],
                tell=lambda text: print(f"mfs: {text}", file=sys.stderr),
                retries=retry,
            )
        if as_json:
            timing = json.loads((directory / "timing.json").read_text(encoding="utf-8"))
            print(json.dumps(summary | {"timing": timing}, indent=2))
            print(f"results: {directory}", file=sys.stderr)
        else:
            _show_results(directory, summary)


def _warn(text: str) -> None:
    print(f"mfs: {text}", file=sys.stderr)


def _window(text: str | None) -> "Window | None":
    from experiments.errors import UserError
    from experiments.results.trace_window import Window

    if text is None:
        return None
    try:
        return Window.read(text)
    except ValueError as error:
        raise UserError(f"--trace-window {text}: {error}") from None


def _show_results(directory: Path, summary: dict[str, Any]) -> None:
    from experiments.results.terminal import render_summary

    stdout().print(render_summary(summary, ["mfs", *sys.argv[1:]]))
    print(f"report: {directory / 'report.html'}")
