"""The lives of single requests on a page: a timeline each, and the story in words."""

from collections.abc import Mapping, Sequence
from typing import Final

from experiments.explain.request_life import RequestLife, decisions_on, lives
from experiments.explain.request_story import request_story
from experiments.report.markup import Markup, html
from experiments.report.page import figure, folded, paragraphs
from experiments.report.request_figures import (
    Timeline,
    left_out,
    looks,
    timeline_figure,
    timeline_legend,
)
from experiments.report.series import Series
from experiments.results.faults import met_by
from experiments.results.link_rates import COUNTER_COLUMNS, LinkRate, counters_in_table, link_rates
from testbed.record import RequestRow

MOST_POLICIES: Final = 4
"""Most series whose requests a report draws: each takes about as long as another figure."""

_CAPTION: Final = (
    "From above: the phases of the request; what its slowest ranks did, with the layer that the first one "
    "began; its flows, grey until their permit and then in the colour of their level, and each collective of "
    "its batches by its last share; and how busy the links were that these crossed."
)


def median_and_worst(series: Sequence[Series]) -> Markup:
    """Draw the median request and the worst one of each series, by TTFT / SLO."""
    parts: list[Markup] = []
    for one in series[:MOST_POLICIES]:
        chosen = _chosen(one.requests)
        parts.append(_drawn(one, chosen, captioned=not parts))
    if len(series) > MOST_POLICIES:
        left = ", ".join(one.label for one in series[MOST_POLICIES:])
        parts.append(paragraphs([f"Not drawn here, to keep the page small: {left}."]))
    if any(parts):
        parts.append(Markup("<p>Any other request: <code>mfs report DIR --request N</code>.</p>"))
    return Markup("".join(parts))


def one_request(one: Series, row: RequestRow) -> Markup:
    """Draw one request of a series, and tell its story."""
    return _drawn(one, {"": row}, captioned=True, told=True)


def _chosen(requests: Sequence[RequestRow]) -> dict[str, RequestRow]:
    """The median and the worst of the requests that have a first token, by what they are called."""
    done = sorted(
        (row for row in requests if row.ttft_ns is not None),
        key=lambda row: ((row.ttft_ns or 0) / (row.slo_ns or 1), row.request),
    )
    if not done:
        return {}
    if len(done) == 1:
        return {"the only request": done[0]}
    return {"the median": done[(len(done) - 1) // 2], "the worst": done[-1]}


def timelines(one: Series, requests: Sequence[RequestRow]) -> list[Timeline]:
    """Return what the timelines of `requests` are drawn from. Each table is read once."""
    found = lives(one.tables, requests)
    decisions = decisions_on(one.tables, found)
    rates = _rates(one, found)
    return [
        Timeline(
            life=life,
            decisions=decisions,
            rates=rates,
            link_gbps=one.link_gbps,
            faults=met_by(one.faults, life.request, (*life.flows, *life.shares), life.spans),
        )
        for life in found
    ]


def _drawn(one: Series, chosen: Mapping[str, RequestRow], *, captioned: bool, told: bool = False) -> Markup:
    parts = []
    found = timelines(one, list(chosen.values()))
    for name, timeline in zip(chosen, found, strict=True):
        row = timeline.life.request
        if name:
            ratio = (row.ttft_ns or 0) / (row.slo_ns or 1)
            title = f"request {row.request}, {name}: TTFT / SLO {ratio:.2f}"
            parts.append(Markup(f"<h3>{one.named}, {html(title)}</h3>"))
        parts.append(_timeline(timeline, captioned=captioned))
        story = Markup(f"<div class=scroll><pre class=story>{html(_story(one, timeline))}</pre></div>")
        parts.append(story if told else folded("its story in words", story, printed=False))
        captioned = False
    return Markup("".join(parts))


def _timeline(timeline: Timeline, *, captioned: bool) -> Markup:
    drawn = timeline_figure(timeline)
    if not drawn:
        return paragraphs(["It has no first token, so there is no timeline of it."])
    shaded = " Shaded: a fault that it met." if timeline.faults else ""
    said = f"{_CAPTION if captioned else ''}{shaded}{left_out(timeline.life)}{looks(timeline.rates)}"
    return figure(drawn, said, timeline_legend(timeline))


def _story(one: Series, timeline: Timeline) -> str:
    path, policy = one.directory.path, one.run["policy"]
    return request_story(path, policy, timeline.life, timeline.decisions, one.faults)


def _rates(one: Series, found: Sequence[RequestLife]) -> Mapping[str, LinkRate]:
    ports = {port for life in found for flow in (*life.flows, *life.shares) for port in flow.path}
    if not ports:
        return {}
    parts = one.tables.links.parts(COUNTER_COLUMNS, port=sorted(ports))
    return link_rates(counters_in_table(parts), one.bytes_scale)
