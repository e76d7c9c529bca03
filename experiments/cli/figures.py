"""`mfs plot` and `mfs table`: figures and tables for papers."""

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.completion import measures_like
from experiments.cli.endings import told_to_the_user
from experiments.figures.formats import FigureFormat, RunFigure, TableFormat, Width

Directories = Annotated[list[Path], typer.Argument(metavar="DIR...", help="Sweep directories.")]
XKey = Annotated[
    str | None,
    typer.Option(
        "--x", metavar="KEY", help="The swept key, or policy; default: the first key that was swept."
    ),
]
YMeasure = Annotated[
    str,
    typer.Option("--y", metavar="MEASURE", help="A measure, as in sweep.csv.", autocompletion=measures_like),
]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="KEY=VALUE", help="Fix another swept key; repeatable."),
]


def plot(
    directories: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Sweep directories, or run directories for their TTFT."),
    ],
    x: XKey = None,
    y: YMeasure = "slo_attainment",
    where: Where = None,
    ci: Annotated[
        bool, typer.Option("--ci", help="Draw the 95 % intervals of means over replicates.")
    ] = False,
    form: Annotated[
        FigureFormat, typer.Option("--format", help="The format, unless --out names one.")
    ] = FigureFormat.PDF,
    width: Annotated[Width, typer.Option(help="A column of a page, or its whole width.")] = Width.COLUMN,
    show: Annotated[
        RunFigure, typer.Option(help="Of runs: the TTFT of their requests, or the parts of its mean.")
    ] = RunFigure.TTFT,
    request: Annotated[
        int | None, typer.Option(metavar="N", help="Of a run: the timeline of this request.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="SPEC", help="With --request: under which policy.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file; default: MEASURE.pdf, or ttft.pdf, in the first DIR.")
    ] = None,
) -> None:
    """Draw a figure for a paper: a measure of sweeps against a swept key, or what runs or requests did."""
    with told_to_the_user():
        from experiments.figures.drawing import draw, where_of

        drawn = draw(
            directories,
            x=x,
            y=y,
            where=where_of(where or ()),
            intervals=ci,
            form=form,
            width=width,
            out=out,
            show=show,
            request=request,
            policy=policy,
        )
        print(drawn.path)


def table(
    directories: Directories,
    x: XKey = None,
    y: YMeasure = "slo_attainment",
    where: Where = None,
    form: Annotated[
        TableFormat, typer.Option("--format", help="How the table is written.")
    ] = TableFormat.MARKDOWN,
) -> None:
    """Print a table for a paper: a measure of sweeps, a line per policy, a column per value of a key."""
    with told_to_the_user():
        from experiments.figures.drawing import tabulate, where_of

        print(tabulate(directories, x=x, y=y, where=where_of(where or ()), form=form), end="")
