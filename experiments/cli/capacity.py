"""`mfs capacity`: the highest rate at which policies keep an SLO attainment."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from experiments.cli.endings import EXIT_FAILED, told_to_the_user
from experiments.cli.options import Policies, Replicates, ScenarioName, SearchDirectory, Settings
from experiments.cli.streams import standard_output_kept_clean, stdout
from experiments.errors import UserError
from experiments.figures.formats import FigureFormat


def capacity(
    scenario: ScenarioName,
    policy: Policies = None,
    attain: Annotated[float, typer.Option(help="The SLO attainment to keep, a share of the requests.")] = 0.9,
    over: Replicates = None,
    load: Annotated[
        str,
        typer.Option(metavar="LOW:HIGH", help="Where to search, in shares of the estimated capacity."),
    ] = "0.2:1.6",
    within: Annotated[
        float, typer.Option(help="How narrow the bracket of a rate gets, as a share of it.")
    ] = 0.05,
    settings: Settings = None,
    out: SearchDirectory = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cells to run at once; default: as many as there are cores.")
    ] = None,
    form: Annotated[
        FigureFormat, typer.Option("--format", help="The format of the figure.")
    ] = FigureFormat.PDF,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print capacity.json, and nothing else, on standard output.")
    ] = False,
) -> None:
    """Find the highest rate at which policies keep an SLO attainment, simulated, with intervals."""
    with told_to_the_user():
        from experiments.capacity.question import Question
        from experiments.sweep.plan import read_over

        low, high = _ends(load)
        question = Question(
            scenario=scenario,
            settings=tuple(settings or ()),
            policies=tuple(policy or ()),
            replicates=read_over(over) if over else None,
            attain=attain,
            low=low,
            high=high,
            within=within,
        )
        question.check()

        # These take long to import, so they come after the options have been checked.
        from experiments.capacity.run import find_capacities
        from experiments.capacity.table import capacity_table, curve_table
        from experiments.cli.progress_display import sweep_display_for
        from experiments.figures.capacity import draw_capacity

        with standard_output_kept_clean(), sweep_display_for(Console(stderr=True)) as display:
            directory, content = find_capacities(
                question, out=out, jobs=jobs, progress=display.update, words=["mfs", *sys.argv[1:]]
            )
        figure = directory / f"capacity.{form.value}"
        if content["curve"]:
            draw_capacity(content, figure)
        if as_json:
            print(json.dumps(content, indent=2))
            print(f"results: {directory}", file=sys.stderr)
        else:
            kept = f"{100 * content['attain']:g} %"
            print(f"SLO met by rate; mean over {content['replicates'] or 'one seed'}")
            stdout().print(curve_table(content))
            print(f"highest rate at which {kept} meet their SLO; load 1 is {content['estimated_rps']:.3g}/s")
            stdout().print(capacity_table(content))
            for note in content["notes"]:
                print(note)
            print(f"results: {directory / 'capacity.json'}\nfigure: {figure}")
        for cell in content["failed"]:
            print(f"mfs: {directory / cell['cell']}: {cell['error'].splitlines()[0]}", file=sys.stderr)
        if content["failed"]:
            raise typer.Exit(EXIT_FAILED)


def _ends(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = 0.0, 0.0
    if not colon or not 0 < ends[0] < ends[1] <= 100:
        raise UserError(f"--load {text}: write it as LOW:HIGH, two loads above 0, as in 0.2:1.6")
    return ends
