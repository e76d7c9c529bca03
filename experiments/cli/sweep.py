"""`mfs sweep`: a scenario at every combination of values."""

import enum
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from experiments.cli.completion import fabric_names_like, keys_like
from experiments.cli.endings import EXIT_FAILED, told_to_the_user
from experiments.cli.fabric_choice import chosen_fabric
from experiments.cli.options import Policies, ScenarioName, Settings
from experiments.cli.streams import standard_output_kept_clean, stdout

if TYPE_CHECKING:
    from experiments.sweep.plan import Plan


class Keep(enum.StrEnum):
    """The results that a cell of a sweep keeps."""

    SUMMARY = "summary"
    TABLES = "tables"


def sweep(
    scenario: ScenarioName,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="A key and its values: V1,V2,... or START:STOP:STEP, with STOP if a step ends there; "
            "repeatable, for every combination. window=N: N windows of a trace.",
            autocompletion=keys_like,
        ),
    ] = None,
    policy: Policies = None,
    settings: Settings = None,
    fabric: Annotated[
        str,
        typer.Option(help="The fabric; mininet runs one cell at a time.", autocompletion=fabric_names_like),
    ] = "sim",
    out: Annotated[
        Path | None,
        typer.Option(help="Directory for the results; new, empty, or this sweep's, to continue it."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cells to run at once; default: as many as there are cores.")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="joblib's engine: loky for this machine, ray or dask for a cluster.")
    ] = "loky",
    keep: Annotated[
        Keep, typer.Option(help="What a cell keeps: its summary, or its tables, trace and report too.")
    ] = Keep.SUMMARY,
    ceiling: Annotated[
        bool,
        typer.Option(
            "--ceiling",
            help="Run the requests without a network, too, and say how much of the gap is closed.",
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print sweep.json, and nothing else, on standard output."),
    ] = False,
) -> None:
    """Run a scenario at every combination of values, in parallel. An interrupted sweep can be continued."""
    with told_to_the_user():
        from experiments.sweep.plan import make_plan, read_over

        ranges = [read_over(text) for text in over or []]
        named = chosen_fabric(fabric).name
        plan = make_plan(
            scenario,
            over=ranges,
            settings=settings or [],
            policies=policy or [],
            fabric=named,
            ceiling=ceiling,
        )

        from experiments.sweep.notes import plan_warnings

        for text in plan_warnings(plan):
            print(f"mfs: {text}", file=sys.stderr)
        # These take long to import, so they come after the options have been checked.
        from experiments.cli.progress_display import sweep_display_for
        from experiments.sweep.run import run_sweep

        with standard_output_kept_clean(), sweep_display_for(Console(stderr=True)) as display:
            directory, content = run_sweep(
                plan,
                out=out,
                tables=keep is Keep.TABLES,
                jobs=jobs,
                backend=backend,
                progress=display.update,
                words=["mfs", *sys.argv[1:]],
            )
        if as_json:
            print(json.dumps(content, indent=2))
            print(f"results: {directory}", file=sys.stderr)
        else:
            _show_sweep(plan, directory, content)
        failed = [cell for cell in content["cells"] if cell["error"] is not None]
        for cell in failed:
            print(f"mfs: {directory / cell['cell']}: {cell['error'].splitlines()[0]}", file=sys.stderr)
        if failed:
            raise typer.Exit(EXIT_FAILED)


def _show_sweep(plan: "Plan", directory: Path, content: dict[str, Any]) -> None:
    from experiments.sweep.replicates import replicates_of
    from experiments.sweep.table import differences_table, gaps_table, results_table
    from experiments.sweep.verdict import limit_sentences

    rows = content["cells"]
    stdout().print(results_table(plan, replicates_of(plan, rows)))
    stdout().print(differences_table(plan, content["differences"]))
    stdout().print(gaps_table(plan, content.get("gaps", ())))
    for sentence in limit_sentences([row for row in rows if row["error"] is None]):
        print(sentence)
    for note in content["notes"]:
        print(f"note: {note}")
    unfaithful = sum(row["faithful"] is False for row in rows)
    if unfaithful:
        print(f"{unfaithful} cells are not faithful: draw no conclusions from them")
    print(f"cells: {directory / 'sweep.csv'}\npage: {directory / 'sweep.html'}")
