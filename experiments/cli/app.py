"""The `mfs` command. It reads options, calls what does the work, and words what went wrong.

`cli_studies` and `cli_bench` have the commands that run more than once. Heavy imports stand inside the
commands, so that `mfs --help` is there at once.
"""

import json
import logging
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from experiments.cli.bench import bench
from experiments.cli.common import (
    EXIT_REFUSED,
    NewDirectory,
    Policies,
    ScenarioName,
    Seed,
    Settings,
    command_line,
    named_fabric,
    overrides_of,
    standard_output_kept_clean,
    stdout,
    told_to_the_user,
)
from experiments.cli.models import models
from experiments.cli.studies import calibrate, sweep, validate
from experiments.cli.workload import workload
from experiments.errors import UserError

app = typer.Typer(
    name="mfs",
    help="A testbed for multi-stage flow scheduling in LLM serving.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench, name="bench")
app.add_typer(workload, name="workload")


def main() -> None:
    """Entry point of the `mfs` command."""
    with told_to_the_user():
        app()


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mfs {metadata.version('mfs-testbed')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)


@app.command()
def run(
    scenario: ScenarioName,
    fabric: Annotated[
        str | None, typer.Option(help="The fabric: mininet, sim, or auto for mininet where it can run.")
    ] = None,
    policy: Policies = None,
    settings: Settings = None,
    seed: Seed = None,
    out: NewDirectory = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the summary, and nothing else, on standard output."),
    ] = False,
) -> None:
    """Run a scenario: every policy on the same requests, then a table and a report."""
    with told_to_the_user():
        from experiments.scenario.reading import Override, load_scenario

        overrides = overrides_of(settings, policy, seed)
        if fabric is not None:
            overrides.append(Override("fabric", json.dumps(fabric), f"--fabric {fabric}"))
        chosen = load_scenario(scenario, overrides)

        # Only now what takes long to import: a slip in the options is answered at once.
        from experiments.cli.progress_display import display_for
        from experiments.run.run import run_scenario
        from testbed.fabrics import FABRICS

        named, notes = named_fabric(chosen.fabric)
        chosen = chosen.model_copy(update={"fabric": named})
        with standard_output_kept_clean(), display_for(Console(stderr=True)) as display:
            directory, summary = run_scenario(
                chosen,
                fabric=FABRICS[named](),
                out=out,
                progress=display.update,
                command=command_line(),
                notes=notes,
            )
        if as_json:
            timing = json.loads((directory / "timing.json").read_text(encoding="utf-8"))
            print(json.dumps(summary | {"timing": timing}, indent=2))
            print(f"results: {directory}", file=sys.stderr)
        else:
            _show_results(directory, summary)


app.command()(sweep)
app.add_typer(calibrate, name="calibrate")
app.command()(models)
app.command()(validate)


@app.command()
def doctor(
    fabric: Annotated[
        str | None, typer.Option(help="Exit with 2 if this one cannot run here; default: if none can.")
    ] = None,
) -> None:
    """List what each fabric needs on this machine, and the command that installs what is missing."""
    with told_to_the_user():
        from experiments.cli.doctor_table import doctor_table, doctor_verdict, works
        from testbed.fabrics import AUTO, FABRICS, choose

        if fabric is not None and fabric not in FABRICS:
            raise UserError(f"--fabric {fabric}: no fabric here (known: {', '.join(FABRICS)})")
        needs = {name: make().requirements() for name, make in FABRICS.items()}
        stdout().print(doctor_table(needs))
        print(doctor_verdict(needs))
        print(f"{AUTO}, the default: {choose().name}")
        if not any(works(needs[name]) for name in ([fabric] if fabric else needs)):
            raise typer.Exit(EXIT_REFUSED)


@app.command()
def scenarios(
    name: Annotated[
        str | None, typer.Argument(help="A scenario by name, or a YAML file: print all its keys.")
    ] = None,
) -> None:
    """List the scenarios, or print one with all its keys and what they mean."""
    with told_to_the_user():
        from experiments.scenario.reading import builtin_scenarios, load_scenario
        from experiments.scenario.text import to_yaml

        if name is not None:
            print(to_yaml(load_scenario(name)), end="")
            return
        descriptions = {known: load_scenario(known).description for known in builtin_scenarios()}
        print("\n".join(_aligned(descriptions)))


@app.command()
def policies() -> None:
    """List the policies and the options they take."""
    with told_to_the_user():
        from controller.policies import describe, policy_names
        from controller.spec import CONTROL, CONTROL_SUMMARY, control_option_lines

        options = {name: _option_lines(name) for name in policy_names()}
        options[f"+{CONTROL}"] = control_option_lines()
        lines = _aligned(describe() | {f"+{CONTROL}": CONTROL_SUMMARY})
        for line, of_this in zip(lines, options.values(), strict=True):
            print(line)
            for option in of_this:
                print(f"    {option}")


@app.command()
def report(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Run directories to report on together.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; default: report.html in the first DIR.")
    ] = None,
) -> None:
    """Write one HTML report on one run, or on several side by side."""
    with told_to_the_user():
        from experiments.report.run_report import write_report

        for directory in directories:
            for page, what in (("sweep.html", "a sweep"), ("validate.json", "a validation")):
                if (directory / page).is_file():
                    page = "report.html" if page.endswith("json") else page
                    raise UserError(f"{directory}: the directory of {what}; its page is {directory / page}")
            if not (directory / "summary.json").is_file():
                raise UserError(f"{directory}: not a run directory, it has no summary.json")
        print(write_report(directories, out or directories[0] / "report.html"))


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    flow: Annotated[str | None, typer.Option(metavar="ID", help="The flow to tell about.")] = None,
    request: Annotated[int | None, typer.Option(metavar="N", help="The request to tell about.")] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="SPEC", help="One policy of the run; default: all of them.")
    ] = None,
) -> None:
    """Tell what happened to one flow or one request of a run, and why."""
    with told_to_the_user():
        from experiments.explain.explain import explain_flow, explain_request

        match flow, request:
            case str(), None:
                print(explain_flow(run, flow, policy))
            case None, int():
                print(explain_request(run, request, policy))
            case _:
                raise UserError("give either --flow ID or --request N")


def _option_lines(policy: str) -> list[str]:
    """The options of a policy; none of one that does not load, whose line in the list says why."""
    from controller.policies import PolicyError, option_lines

    try:
        return option_lines(policy)
    except PolicyError:
        return []


def _show_results(directory: Path, summary: dict[str, Any]) -> None:
    from experiments.results.terminal import render_summary

    stdout().print(render_summary(summary))
    print(f"report: {directory / 'report.html'}")


def _aligned(rows: Mapping[str, str]) -> list[str]:
    width = max(map(len, rows))
    return [f"{key:<{width}}  {text}".rstrip() for key, text in rows.items()]
