"""Figures and tables for papers: `mfs plot` and `mfs table` from Python."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from experiments.figures.drawing import Drawn, draw, tabulate
from experiments.figures.formats import FigureFormat, RunFigure, TableFormat, Width
from mfs.results import Run, Source, Sweep, directory_of
from mfs.settings import as_text


class Plot:
    """A figure that has been written to the file `path`. A notebook shows it."""

    def __init__(self, drawn: Drawn) -> None:
        self.path: Path = drawn.path
        self.figure = drawn.figure

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.figure.savefig(picture, format="png", dpi=150)
        return picture.getvalue()

    def __repr__(self) -> str:
        return f"<figure in {self.path}>"


def plot(
    *sources: Run | Sweep | Source,
    x: str | None = None,
    y: str = "slo_attainment",
    where: Mapping[str, Any] | None = None,
    ci: bool = False,
    format: Literal["pdf", "svg", "png"] = "pdf",
    width: Literal["column", "page"] = "column",
    show: Literal["ttft", "parts"] = "ttft",
    request: int | None = None,
    policy: str | None = None,
    out: Source | None = None,
) -> Plot:
    """Draw a measure of sweeps against a swept key, or what runs or a request did, into a file.

    Args:
        x: The swept key to draw against, or `policy`; by default the first key that was swept. Not for runs.
        y: A measure, as in `sweep.csv`. Not for runs.
        where: Values of the other swept keys.
        ci: Draw the 95 % intervals of means over replicates: seeds or windows.
        width: A column of a page, or its whole width.
        show: Of runs, the TTFT of their requests, or the parts of its mean. Not for sweeps.
        request: Of a run, the timeline of this request, under `policy`. Not for sweeps.
        out: The file, whose suffix is the format; by default `y.pdf`, or `ttft.pdf`, in the first directory.

    Raises:
        UserError: If the sources, the key or the measure cannot be drawn.
        OSError: If the file cannot be written.
    """
    return Plot(
        draw(
            _paths(sources),
            x=x,
            y=y,
            where=_where(where),
            intervals=ci,
            form=FigureFormat(format),
            width=Width(width),
            out=None if out is None else Path(out),
            show=RunFigure(show),
            request=request,
            policy=policy,
        )
    )


def table(
    *sources: Sweep | Source,
    x: str | None = None,
    y: str = "slo_attainment",
    where: Mapping[str, Any] | None = None,
    format: Literal["latex", "markdown", "csv"] = "markdown",
) -> str:
    """Return a table of a measure of sweeps: a line per policy, a column per value of a swept key.

    The arguments are those of `plot`. Raises `UserError`.
    """
    return tabulate(_paths(sources), x=x, y=y, where=_where(where), form=TableFormat(format))


def _paths(sources: tuple[Run | Sweep | Source, ...]) -> list[Path]:
    if not sources:
        raise TypeError("name at least one run, sweep or directory")
    return [directory_of(source) for source in sources]


def _where(where: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: as_text(value) for key, value in (where or {}).items()}
