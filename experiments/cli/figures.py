"""`mfs plot` and `mfs table`: figures and tables for papers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.endings import told_to_the_user
from experiments.errors import UserError
from experiments.figures.formats import FigureFormat, TableFormat, Width

if TYPE_CHECKING:
    from experiments.figures.curves import Curve


Directories = Annotated[list[Path], typer.Argument(metavar="DIR...", help="Sweep directories.")]
XKey = Annotated[
    str | None, typer.Option("--x", metavar="KEY", help="The swept key; default: the first that was swept.")
]
YMeasure = Annotated[str, typer.Option("--y", metavar="MEASURE", help="A measure, as in sweep.csv.")]
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
    out: Annotated[
        Path | None, typer.Option(help="The file; default: MEASURE.pdf, or ttft.pdf, in the first DIR.")
    ] = None,
) -> None:
    """Draw a figure for a paper: a measure of sweeps against a swept key, or the TTFT of runs."""
    with told_to_the_user():
        formats = [one.value for one in FigureFormat]
        if out is not None and out.suffix.removeprefix(".") not in formats:
            raise UserError(f"--out {out}: name a file that ends in .{', .'.join(formats)}")
        runs = [path for path in directories if (path / "summary.json").is_file()]
        if runs and len(runs) < len(directories):
            raise UserError("plot runs or sweeps; these are both")
        if runs:
            print(_plot_runs(runs, out or runs[0] / f"ttft.{form.value}", width))
            return
        from experiments.figures.plot import draw_sweep

        key, curves = _curves(directories, x, y, where)
        path = out or directories[0] / f"{y}.{form.value}"
        draw_sweep(curves, path, x=key, y=y, intervals=ci, width=width)
        print(path)


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
        from experiments.figures.tables import table_text

        key, curves = _curves(directories, x, y, where)
        print(table_text(curves, x=key, y=y, form=form), end="")


def _curves(paths: list[Path], x: str | None, y: str, where: list[str] | None) -> tuple[str, "list[Curve]"]:
    from experiments.compare.replicates import read_sweep
    from experiments.figures.curves import named_once, read_curves
    from experiments.results.paired import REPLICATES

    fixed = dict(_pair(text) for text in where or ())
    curves = named_once(read_curves(paths, x=x, y=y, where=fixed))
    key = x or next(key for key in read_sweep(paths[0])["over"] if key not in REPLICATES)
    return key, curves


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise UserError(f"--where {text}: write it as KEY=VALUE")
    return key, value


def _plot_runs(paths: list[Path], out: Path, width: Width) -> Path:
    from controller.units import NS_PER_S
    from experiments.compare.sides import sides_of
    from experiments.figures.plot import draw_ttft

    runs = [
        (
            side.label,
            [row.ttft_ns / NS_PER_S for row in side.requests if row.ttft_ns is not None],
            len(side.requests),
        )
        for side in sides_of(paths)
    ]
    draw_ttft(runs, out, width=width)
    return out
