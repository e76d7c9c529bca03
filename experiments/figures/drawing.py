"""From the directories of sweeps or runs to a figure in a file, or to a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from controller.units import NS_PER_S
from experiments.compare.sides import sides_of
from experiments.errors import UserError
from experiments.figures.curves import Curve, named_once, read_curves
from experiments.figures.formats import FigureFormat, RunFigure, TableFormat, Width
from experiments.figures.tables import table_text
from experiments.results.reading import read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.report.request_figures import Timeline


class Drawn(msgspec.Struct, frozen=True):
    """A figure, and the file that it was written to."""

    path: Path
    figure: "Figure"


def draw(
    paths: Sequence[Path],
    *,
    x: str | None,
    y: str,
    where: Mapping[str, str],
    intervals: bool,
    form: FigureFormat,
    width: Width,
    out: Path | None,
    show: RunFigure = RunFigure.TTFT,
    request: int | None = None,
    policy: str | None = None,
) -> Drawn:
    """Draw a measure of sweeps against a swept key, or the TTFT of runs or its parts, or a request of a run.

    `x`, `y` and `where` are those of `read_curves`, and mean nothing for runs; `show`, `request` and `policy`
    mean nothing for sweeps. `out` defaults to what is drawn, in the first directory, with `form` as its
    suffix. Raises `UserError` for directories that cannot be drawn and a suffix that is no format, `OSError`
    if the file cannot be written.
    """
    # Imported late: matplotlib takes long.
    from experiments.figures.plot import draw_request, draw_sweep, draw_ttft, draw_ttft_parts

    formats = [one.value for one in FigureFormat]
    if out is not None and out.suffix.removeprefix(".") not in formats:
        raise UserError(f"--out {out}: name a file that ends in .{', .'.join(formats)}")
    runs = [path for path in paths if (path / "summary.json").is_file()]
    if runs and len(runs) < len(paths):
        raise UserError("plot runs or sweeps; these are both")
    if runs and request is not None:
        file = out or runs[0] / f"request-{request}.{form.value}"
        return Drawn(file, draw_request(_timeline(runs, request, policy), file, width=width))
    if runs:
        file = out or runs[0] / f"{show.value}.{form.value}"
        if show is RunFigure.PARTS:
            return Drawn(file, draw_ttft_parts(_parts_of_runs(runs), file, width=width))
        return Drawn(file, draw_ttft(_ttft_of_runs(runs), file, width=width))
    if request is not None:
        raise UserError(f"--request {request}: {paths[0]} is not the directory of a run")
    key, curves = _curves(paths, x, y, where)
    file = out or paths[0] / f"{y}.{form.value}"
    return Drawn(file, draw_sweep(curves, file, x=key, y=y, intervals=intervals, width=width))


def tabulate(
    paths: Sequence[Path], *, x: str | None, y: str, where: Mapping[str, str], form: TableFormat
) -> str:
    """Return a table of a measure of sweeps: `table_text` of `read_curves`. Raises `UserError`."""
    key, curves = _curves(paths, x, y, where)
    return table_text(curves, x=key, y=y, form=form)


def where_of(texts: Sequence[str]) -> dict[str, str]:
    """Read texts of `--where KEY=VALUE`. Raises `UserError` for a text of another form."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise UserError(f"--where {text}: write it as KEY=VALUE")
        found[key] = value
    return found


def _curves(
    paths: Sequence[Path], x: str | None, y: str, where: Mapping[str, str]
) -> tuple[str, list[Curve]]:
    """Return what is drawn against, and the curves."""
    against, curves = read_curves(paths, x=x, y=y, where=where)
    return against, named_once(curves)


def _ttft_of_runs(paths: Sequence[Path]) -> list[tuple[str, list[float], int]]:
    """Return the label, the TTFTs in seconds and the number of requests of each run."""
    return [
        (
            side.label,
            [row.ttft_ns / NS_PER_S for row in side.requests if row.ttft_ns is not None],
            len(side.requests),
        )
        for side in sides_of(paths)
    ]


def _parts_of_runs(paths: Sequence[Path]) -> list[tuple[str, Mapping[str, float]]]:
    from experiments.report.series import series_of
    from experiments.report.stage_figures import ttft_parts

    series = series_of([read_run(path) for path in paths])
    told = [(one.label, parts) for one in series if (parts := ttft_parts(one.run))]
    if not told:
        raise UserError(f"{paths[0]}: no request has a first token")
    return told


def _timeline(paths: Sequence[Path], request: int, policy: str | None) -> "Timeline":
    from experiments.report.request_page import requests_of
    from experiments.report.request_section import timelines

    found = requests_of([read_run(path) for path in paths], request, policy)
    if len(found) > 1:
        labels = ", ".join(one.label for one, _ in found)
        raise UserError(f"--request {request}: name one of its policies with --policy: {labels}")
    ((one, row),) = found
    if row.first_token_ns is None:
        raise UserError(f"--request {request}: it has no first token under {one.label}")
    return timelines(one, [row])[0]
