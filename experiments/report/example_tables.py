"""The tables of single requests and flows: the slowest requests, the most promoted flows."""

import heapq
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from controller.flow import Decision
from controller.units import NS_PER_S
from experiments.report.chart import PART_COLOURS
from experiments.report.markup import Markup, html, keyed, table
from experiments.report.series import Series
from experiments.results.levels import decisions_by_flow
from experiments.results.limit_words import TTFT_PARTS
from experiments.results.readable_numbers import NOTHING, duration
from experiments.results.requests import batches_of
from experiments.results.spans import spans_by_batch
from experiments.results.ttft_parts import time_spent
from testbed.record import FlowRow, RequestRow

IntArray = npt.NDArray[np.int64]

SLOWEST: Final = 6
EXAMPLES_PER_STAGE: Final = 2
_PARTS: Final = tuple(
    (key.removesuffix("_s") + "_ns", name, PART_COLOURS[key]) for key, name in TTFT_PARTS.items()
)
"""The parts of a TTFT: their names in `TimeSpent`, in words, and their colours."""


def slowest(series: Sequence[Series]) -> Markup:
    """Table of the requests with the highest TTFT / SLO and where their time went, then of those without a
    first token; at most `SLOWEST` of each per series."""
    rows: list[Sequence[object]] = []
    for one in series:
        done = [r for r in one.requests if r.ttft_ns is not None and r.slo_ns]
        worst = heapq.nlargest(SLOWEST, done, key=_over_slo)
        batches = {batch for row in worst for batch in batches_of(row)}
        spans = spans_by_batch(one.tables.spans.where(batch=batches))
        longest = max((r.ttft_ns or 0 for r in done), default=1)
        for row in worst:
            split = time_spent(row, spans)
            parts = [(getattr(split, field), name, colour) for field, name, colour in _PARTS] if split else []
            rows.append(
                (
                    one.named,
                    row.request,
                    _bar(parts, longest),
                    duration((row.ttft_ns or 0) / NS_PER_S),
                    f"{_over_slo(row):.2f}",
                    *(duration(part[0] / NS_PER_S) for part in parts),
                )
            )
        rows += [
            (
                one.named,
                row.request,
                row.status,
                NOTHING,
                NOTHING,
                *[NOTHING] * len(_PARTS),
            )
            for row in one.requests
            if row.ttft_ns is None
        ][:SLOWEST]
    headings = ["policy", "request", "where the time went", "TTFT", "/ SLO"]
    keys = [keyed(colour, name) for _, name, colour in _PARTS]
    return table([*headings, *keys], rows, text_columns=3)


def _over_slo(row: RequestRow) -> float:
    return (row.ttft_ns or 0) / row.slo_ns


def _bar(parts: Sequence[tuple[int, str, str]], full: int) -> Markup:
    pieces = "".join(
        f"<i style='width:{100 * ns / full:.2f}%;background:{colour}' title='{name}'></i>"
        for ns, name, colour in parts
        if ns > 0
    )
    return Markup(f"<span class=bar>{pieces}</span>")


def promoted_examples(series: Sequence[Series]) -> Markup:
    """Table of the most promoted flows of each series and stage, with all decisions about them."""
    rows = []
    for one in series:
        climbers = _climbers(one)
        ended = set(climbers.values())  # flows are in order of it, so few row groups have any of these
        flows = {flow.id: flow for flow in one.tables.flows.where(id=climbers, finish_ns=ended)}
        decisions = decisions_by_flow(one.tables.decisions.where(flow=climbers))
        rows += [_example(one, flows[id], decisions.get(id, [])) for id in climbers]
    if not rows:
        return Markup("<p>No flow was promoted.</p>")
    headings = ["policy", "flow", "stage", "decisions (time since submit, level, reason)"]
    return table([*headings, "size", "took"], rows, text_columns=4)


def _climbers(one: Series) -> dict[str, int]:
    """The ids of the most promoted flows of each stage, and when each ended."""
    flows = one.tables.flows
    promoted: dict[str, list[IntArray]] = {}  # how often, and the places of the flows
    begin = 0
    for part in flows.parts(["stage", "promotions"]):
        promotions = part["promotions"].to_numpy()
        for stage in part["stage"].unique().to_pylist():
            mine = pc.equal(part["stage"], stage).to_numpy() & (promotions > 0)
            some = np.stack((promotions[mine], begin + np.flatnonzero(mine)))
            promoted.setdefault(stage, []).append(some)
        begin += part.num_rows
    found: dict[str, int] = {}
    for _, parts in sorted(promoted.items()):
        promotions, places = np.concatenate(parts, axis=1)
        few = promotions >= np.sort(promotions)[-EXAMPLES_PER_STAGE:].min(initial=np.iinfo(np.int64).max)
        rows = flows.at(["id", "finish_ns"], places[few])
        columns = (rows[name].to_pylist() for name in ("id", "finish_ns"))
        most = sorted(zip((-promotions[few]).tolist(), *columns, strict=True))[:EXAMPLES_PER_STAGE]
        found |= {id: finish_ns for _, id, finish_ns in most}
    return found


def _example(one: Series, flow: FlowRow, decisions: Sequence[Decision]) -> Sequence[object]:
    steps = "<br>".join(
        f"<span class=n>{html(duration((d.time_ns - flow.submit_ns) / NS_PER_S))}</span> "
        f"<b>{d.level_to.name}</b> {html(d.reason)}"
        for d in decisions
    )
    return (
        one.named,
        flow.id,
        flow.stage.value,
        Markup(steps),
        f"{flow.size_bytes / 1e6:.2f} MB",
        duration((flow.finish_ns - flow.submit_ns) / NS_PER_S),
    )
