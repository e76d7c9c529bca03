"""The report on runs: one self-contained HTML file, made from run directories alone.

It is readable offline, on a phone, in dark mode and on paper. The page's template is
`templates/report.html`, its style `templates/report.css`; figures are inline SVG.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from experiments.atomic_file import write_text
from experiments.errors import UserError
from experiments.report import (
    example_tables,
    link_figures,
    micro_figures,
    result_tables,
    serving_figures,
    stage_figures,
)
from experiments.report.facts import facts
from experiments.report.faults import fault_paragraphs, shaded_text
from experiments.report.files_section import file_links
from experiments.report.page import Section, figure, folded, page, section
from experiments.report.request_section import median_and_worst
from experiments.report.series import MOST_FLOWS, Series, series_of
from experiments.report.trust import checks
from experiments.report.verdict import verdict
from experiments.results.reading import RunDirectory, read_run
from experiments.side_by_side import all_of

Maker = Callable[[], Section]
"""Makes a section, or the verdict as one. Drawing figures takes most of the time of a report."""


class _TakesLong:
    """A maker that takes longer than others."""

    def __init__(self, make: Maker) -> None:
        self._make = make

    def __call__(self) -> Section:
        return self._make()


def write_report(
    dirs: list[Path], out: Path, *, jobs: int = 1, so_far: Callable[[int, int], object] = lambda *_: None
) -> Path:
    """Write a page that compares the runs of all `dirs` to `out`, and return `out`. With several `jobs`, as
    many processes make its parts. `so_far` is called with how many there are, and how many there will be.

    Raises `UserError` for a directory that holds no finished run, `OSError` if `out` cannot be written.
    """
    directories = [read_run(path) for path in dirs]
    with _no_search_for_garbage():
        text = render_report(directories, out, jobs=jobs, so_far=so_far)
    write_text(out, text)
    return out


@contextlib.contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Matplotlib makes very many objects that live until their figure is drawn. Searching them for garbage
    again and again takes a fifth of the time of a report."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def render_report(
    directories: Sequence[RunDirectory],
    out: Path,
    *,
    jobs: int = 1,
    so_far: Callable[[int, int], object] = lambda *_: None,
) -> str:
    """Return the page as text, with links as from the file `out`. Raises `UserError` if there is no run to
    show."""
    series = series_of(directories)
    if not series:
        raise UserError("nothing to report: no run in the given directories")
    serving = [one for one in series if not one.is_micro]
    coflows = [one for one in series if one.is_coflows]
    micro = [one for one in series if one.is_micro and not one.is_coflows]
    makers: list[Maker] = [lambda: section("", verdict(directories, series))]
    makers += _serving_sections(serving, directories) + _coflow_sections(coflows, directories)
    makers += _micro_sections(micro, directories)
    # What takes long begins first, so that no process is left alone with it at the end.
    order = sorted(range(len(makers)), key=lambda i: not isinstance(makers[i], _TakesLong))
    parts = {f"part {i + 1}": makers[i] for i in order}
    made = all_of(parts, jobs=jobs, so_far=lambda count: so_far(count, len(makers)))
    told, *sections = (made[f"part {i + 1}"] for i in range(len(makers)))
    sections.append(section("How far to trust it", folded("all checks, with their bounds", checks(series))))
    for directory in directories:
        name = f" ({directory.path.resolve().name})" if len(directories) > 1 else ""
        sections.append(section(f"What was run{name}", facts(directory)))
    sections.append(section("Tables and traces", file_links(directories, out)))
    titles = list(dict.fromkeys(d.summary["scenario"] for d in directories))
    return page(
        title=", ".join(titles),
        subtitle=_subtitle(directories, series),
        verdict=told.body,
        sections=sections,
    )


def _subtitle(directories: Sequence[RunDirectory], series: Sequence[Series]) -> str:
    fabrics = ", ".join(dict.fromkeys(d.summary["fabric"] for d in directories))
    seeds = ", ".join(dict.fromkeys(str(d.summary["seed"]) for d in directories))
    policies = ", ".join(one.label for one in series)
    return f"{policies} on the fabric {fabrics}, seed {seeds}"


def _serving_sections(series: Sequence[Series], directories: Sequence[RunDirectory]) -> list[Maker]:
    if not series:
        return []
    promoted = [one for one in series if one.run["promotions"]]
    return [
        lambda: section(
            "Results",
            result_tables.summary(series),
            result_tables.ceiling(directories),
            result_tables.left_out(series),
            result_tables.tpot(series),
            result_tables.pruned(series),
            fault_paragraphs(directories),
        ),
        lambda: section(
            "Time to first token",
            figure(
                serving_figures.ttft_figure(series),
                "Share of all arrived requests with a TTFT of at most x. A request without a first "
                "token counts as a miss: the curve then ends below 1.",
            ),
            figure(
                serving_figures.arrivals_figure(series),
                "Each request at its arrival. Above the dashed line it missed its SLO; a cross is a "
                f"request without a first token.{shaded_text(series)}",
            ),
            folded("furthest from their SLO, and where their time went", example_tables.slowest(series)),
            folded("prefix cache", result_tables.caches(series)),
        ),
        lambda: section(
            "Where the time goes",
            figure(
                stage_figures.parts_figure(series),
                "The mean TTFT of each policy by its parts. S2 is the time in collectives, exposed S1 is the "
                "wait for reused KV that compute did not hide, and the S3 tail is S3 after prefill.",
            ),
            folded("what limits each run, and the parts as shares", result_tables.limits(series)),
        ),
        lambda: section(
            "Stages",
            figure(
                serving_figures.stages_figure(series),
                "From the submit of a flow to its last byte, including its waits for a lane and a permit.",
            ),
            figure(
                serving_figures.waits_figure(series),
                "Left: how long the slowest rank of a batch waited for reused KV. Middle: from the moment "
                "the last member is ready to the end of the last one. Right: how long before its deadline "
                "an S3 flow finished; far to the right, another flow could have used its bandwidth.",
            ),
            folded("flows of each stage", stage_figures.stage_table(series)),
        ),
        _TakesLong(lambda: section("One request", median_and_worst(series))),
        lambda: section(
            "Levels",
            figure(
                serving_figures.levels_figure(series),
                "Flows in flight by level, the most urgent at the bottom."
                f"{serving_figures.sampled_text(series)}{shaded_text(series)}",
            ),
            folded("flows that were promoted", example_tables.promoted_examples(promoted or series)),
        ),
        partial(_links_section, series),
    ]


def _links_section(series: Sequence[Series]) -> Section:
    loads = link_figures.link_loads(series)
    return section(
        "Links",
        figure(
            link_figures.links_figure(loads),
            "Each line is one direction of a link; at most the 40 busiest are shown.",
        ),
        figure(
            link_figures.busiest_links_figure(loads),
            "The links that carried most, by level. Rates are model rates and include framing."
            f"{shaded_text([one for one in series if any(fault.ports for fault in one.faults)])}",
        ),
    )


def _coflow_sections(series: Sequence[Series], directories: Sequence[RunDirectory]) -> list[Maker]:
    if not series:
        return []
    return [
        lambda: section(
            "Coflows",
            result_tables.coflows(series),
            fault_paragraphs(directories),
            figure(
                micro_figures.coflows_figure(series),
                "Coflow completion time: from the first submit to the last byte of the last flow.",
            ),
            folded("flows that were promoted", example_tables.promoted_examples(series)),
        ),
        partial(_links_section, series),
    ]


def _micro_sections(series: Sequence[Series], directories: Sequence[RunDirectory]) -> list[Maker]:
    if not series:
        return []
    return [
        lambda: section(
            "Flows",
            result_tables.micro_flows(series),
            fault_paragraphs(directories),
            figure(
                micro_figures.timeline_figure(series),
                "From permit to last byte, coloured by level; | is the deadline. At most the first "
                f"{MOST_FLOWS} flows are shown.",
            ),
            figure(
                micro_figures.received_figure(series),
                "Bytes that have arrived at the receiver.",
            ),
            folded("flows that were promoted", example_tables.promoted_examples(series)),
        ),
        partial(_links_section, series),
    ]
