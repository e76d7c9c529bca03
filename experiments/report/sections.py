"""The tables and texts of a report as HTML. Everything that came from a run is escaped here."""

import heapq
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

import pyarrow.compute as pc
import yaml

from experiments.report.series import MOST_FLOWS, Series
from experiments.results.levels import decisions_by_flow
from experiments.results.readable_numbers import NOTHING, check_value, duration, share
from experiments.results.reading import RunDirectory
from experiments.results.requests import batches_of
from experiments.results.spans import spans_by_batch
from experiments.results.summary import FlowOrder
from experiments.results.ttft_parts import time_spent
from testbed.record import DecisionRow, FlowRow, RequestRow

SLOWEST: Final = 6
EXAMPLES_PER_STAGE: Final = 2
TIME_PARTS: Final = (
    ("queue_ns", "queue", "#8a8f98"),
    ("s1_wait_ns", "S1 wait", "#d9822b"),
    ("compute_ns", "compute", "#2e9e77"),
    ("collective_ns", "collective", "#2f7fc1"),
    ("other_ns", "other", "#c9ccd1"),
    ("p2d_tail_ns", "P2D tail", "#b8609e"),
    ("decode_ns", "decode step", "#6a6fc0"),
)


class Markup(str):
    """HTML that is already escaped."""


def html(value: object) -> Markup:
    """`value` as HTML, escaped unless it is `Markup`."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, text_columns: int) -> Markup:
    """A table whose first `text_columns` columns are text and whose others are numbers."""

    def line(tag: str, cells: Sequence[object]) -> str:
        return "".join(
            f"<{tag}{'' if i < text_columns else ' class=n'}>{html(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return Markup(
        f"<div class=scroll><table><thead><tr>{line('th', headings)}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _named(series: Series) -> Markup:
    return Markup(f"<i class=key style='background:{series.colour}'></i>{html(series.label)}")


def verdict(directories: Sequence[RunDirectory]) -> Markup:
    """The banner: whether the numbers can be believed, and if not, why and what to change."""
    failed = [
        (run["policy"], check)
        for directory in directories
        for run in directory.summary["runs"]
        for check in run["fidelity"]["checks"]
        if not check["ok"]
    ]
    if all(directory.summary["faithful"] for directory in directories):
        return Markup(
            "<div class='verdict ok'><b>Faithful.</b> Every fidelity check of every run is within "
            "its bounds; they are listed at the end.</div>"
        )
    items = "".join(
        f"<li><b>{html(policy)}</b>: {html(check['name'])} is {html(check_value(check))}, wanted "
        f"{html(check['bound'])}. {html(check['advice'])}</li>"
        for policy, check in failed
    )
    return Markup(
        "<div class='verdict bad'><b>Not faithful.</b> A run is outside the bounds within which its "
        f"numbers stand for the model. Draw no conclusions from them.<ul>{items}</ul></div>"
    )


def _against(value: float | None, reference: float | None) -> Markup:
    """A duration, and below it the change against the first series."""
    text = html(duration(value))
    if value is None or not reference or value == reference:
        return text
    return Markup(f"{text}<small>{100 * (value / reference - 1):+.0f} %</small>")


def summary(series: Sequence[Series]) -> Markup:
    """One line per series; the small figures are changes against the first one."""
    first = series[0].run
    rows: list[Sequence[object]] = []
    for one in series:
        run = one.run
        rows.append(
            (
                _named(one),
                f"{run['completed']}/{run['requests']}",
                _against(run["ttft_s"]["mean"], first["ttft_s"]["mean"]),
                *(duration(run["ttft_s"][name]) for name in ("p50", "p90", "p99")),
                share(run["slo_attainment"]),
                _against(run["cct_s"]["mean"], first["cct_s"]["mean"]),
                _against(run["exposed_s1_s"]["mean"], first["exposed_s1_s"]["mean"]),
                _against(run["earliness_s"]["mean"], first["earliness_s"]["mean"]),
                run["promotions"],
                "yes" if run["fidelity"]["faithful"] else Markup("<b class=no>no</b>"),
            )
        )
        for name, found in run.get("classes", {}).items():
            rows.append(_class_row(name, found))
    headings = ["policy", "done", "TTFT mean", "p50", "p90", "p99", "SLO met", "mean CCT"]
    headings += ["S1 exposed", "P2D earliness", "promotions", "faithful"]
    return table(headings, rows, text_columns=1)


def _class_row(name: str, found: dict[str, Any]) -> Sequence[object]:
    """The requests of one SLO class, below the line of all."""
    return (
        Markup(f"&emsp;{html(name)}"),
        f"{found['completed']}/{found['requests']}",
        *(duration(found["ttft_s"][part]) for part in ("mean", "p50", "p90", "p99")),
        share(found["slo_attainment"]),
        *[""] * 5,
    )


def tpot(series: Sequence[Series]) -> Markup:
    """The time per output token of each series; nothing where decoding is not modelled."""
    told = [(one, one.run.get("tpot_s") or {}) for one in series]
    rows = [
        (_named(one), *(duration(times[name]) for name in ("mean", "p50", "p99")))
        for one, times in told
        if times.get("mean") is not None
    ]
    if not rows:
        return Markup("")
    headings = ["time per output token", "mean", "p50", "p99"]
    return table(headings, rows, text_columns=1)


def left_out(series: Sequence[Series]) -> Markup:
    """How many requests warm up and are in no number of the page; nothing where none does."""
    counts = sorted({one.run.get("counts", {}).get("warmup", 0) for one in series} - {0})
    return Markup("".join(f"<p>Left out: the first {count} requests, which warm up.</p>" for count in counts))


def micro_flows(series: Sequence[Series]) -> Markup:
    """The flows of a micro workload, `MOST_FLOWS` at most of each series."""
    rows = [
        (
            _named(one),
            flow["id"],
            flow["stage"],
            duration(flow["start_s"]),
            duration(flow["finish_s"]),
            duration(flow["finish_s"] - flow["start_s"]),
            flow["level_first"],
            flow["level_last"],
            flow["promotions"],
        )
        for one in series
        for flow in one.run.get("flows", ())[:MOST_FLOWS]
    ]
    headings = ["policy", "flow", "stage", "start", "finish", "took", "first level", "last level"]
    return table([*headings, "promotions"], rows, text_columns=3)


def coflows(series: Sequence[Series]) -> Markup:
    """One line per series of coflows; the small figure is the change against the first one."""
    first = series[0].run["coflow_completion_s"]["mean"]
    rows = []
    for one in series:
        times = one.run["coflow_completion_s"]
        rows.append(
            (
                _named(one),
                one.run["coflows"],
                sum(one.run["flows_by_stage"].values()),
                _against(times["mean"], first),
                *(duration(times[name]) for name in ("p50", "p90", "p99")),
                duration(one.run["duration_s"]),
                "yes" if one.run["fidelity"]["faithful"] else Markup("<b class=no>no</b>"),
            )
        )
    headings = ["policy", "coflows", "flows", "CCT mean", "p50", "p90", "p99", "done after", "faithful"]
    return table(headings, rows, text_columns=1)


def caches(series: Sequence[Series]) -> Markup:
    """What the prefix caches were good for: a line per series and unit, and for several units their sum."""
    rows: list[Sequence[object]] = []
    for one in series:
        cache = one.run.get("cache") or {}
        units = cache.get("units", {})
        lines = list(units.items())
        if len(lines) > 1:
            lines.append(("all", cache["total"]))
        for name, counts in lines:
            reusable = sum(counts[f"{kind}_tokens"] for kind in ("local", "remote", "missed"))
            rows.append(
                (
                    _named(one),
                    name,
                    counts["requests"],
                    f"{counts['prompt_tokens']:,}",
                    *(_of(counts[f"{kind}_tokens"], reusable) for kind in ("local", "remote", "missed")),
                    f"{counts['evicted_blocks']:,}",
                )
            )
    if not rows:
        return Markup("<p>Nothing is known of the prefix caches of this run.</p>")
    headings = ["policy", "unit", "requests", "prompt tokens", "on the replica", "fetched (S1)", "missed"]
    return table([*headings, "evicted blocks"], rows, text_columns=2)


def _of(tokens: int, reusable: int) -> Markup:
    """Tokens, and below them what share they are of the tokens that could have been reused."""
    return Markup(f"{tokens:,}<small>{share(tokens / reusable if reusable else None)}</small>")


def slowest(series: Sequence[Series]) -> Markup:
    """The requests worst off against their SLO, and where their time went."""
    rows: list[Sequence[object]] = []
    for one in series:
        done = [r for r in one.requests if r.ttft_ns is not None and r.slo_ns]
        worst = heapq.nlargest(SLOWEST, done, key=_over_slo)
        batches = {batch for row in worst for batch in batches_of(row)}
        spans = spans_by_batch(one.tables.spans.where(batch=batches))
        longest = max((r.ttft_ns or 0 for r in done), default=1)
        for row in worst:
            split = time_spent(row, spans)
            parts = (
                [(getattr(split, field), name, colour) for field, name, colour in TIME_PARTS] if split else []
            )
            rows.append(
                (
                    _named(one),
                    row.request,
                    _bar(parts, longest),
                    duration((row.ttft_ns or 0) / 1e9),
                    f"{_over_slo(row):.2f}",
                    *(duration(part[0] / 1e9) for part in parts),
                )
            )
        rows += [
            (_named(one), row.request, row.status, NOTHING, NOTHING, *[NOTHING] * len(TIME_PARTS))
            for row in one.requests
            if row.ttft_ns is None
        ][:SLOWEST]
    headings = ["policy", "request", "where the time went", "TTFT", "/ SLO"]
    keys = [Markup(f"<i class=key style='background:{colour}'></i>{name}") for _, name, colour in TIME_PARTS]
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
    """For each series and stage, the flows that climbed most, with every decision about them."""
    rows = []
    for one in series:
        climbers = _climbers(one)
        flows = {flow.id: flow for flow in one.tables.flows.where(id=climbers)}
        decisions = decisions_by_flow(one.tables.decisions.where(flow=climbers))
        rows += [_example(one, flows[id], decisions.get(id, [])) for id in climbers]
    if not rows:
        return Markup("<p>No flow was promoted.</p>")
    headings = ["policy", "flow", "stage", "decisions (time since submit, level, reason)"]
    return table([*headings, "size", "took"], rows, text_columns=4)


def _climbers(one: Series) -> list[str]:
    """The ids of the flows of each stage that were promoted most often."""
    most: dict[str, list[tuple[int, str]]] = {}
    for part in one.tables.flows.parts(["stage", "promotions", "id"]):
        promoted = part.filter(pc.greater(part["promotions"], 0))
        columns = (promoted[name].to_pylist() for name in ("stage", "promotions", "id"))
        for stage, promotions, id in zip(*columns, strict=True):
            best = most.setdefault(stage, [])
            best.append((-promotions, id))
            best.sort()
            del best[EXAMPLES_PER_STAGE:]
    return [id for stage in sorted(most) for _, id in most[stage]]


def _example(one: Series, flow: FlowRow, decisions: Sequence[DecisionRow]) -> Sequence[object]:
    steps = "<br>".join(
        f"<span class=n>{html(duration((d.time_ns - flow.submit_ns) / 1e9))}</span> "
        f"<b>{d.level_to.name}</b> {html(d.reason)}"
        for d in decisions
    )
    return (
        _named(one),
        flow.id,
        flow.stage.value,
        Markup(steps),
        f"{flow.size_bytes / 1e6:.2f} MB",
        duration((flow.finish_ns - flow.submit_ns) / 1e9),
    )


def checks(series: Sequence[Series]) -> Markup:
    """Every fidelity check with its bound."""
    rows = [
        (
            _named(one),
            check["name"],
            "ok" if check["ok"] else Markup("<b class=no>failed</b>"),
            check_value(check),
            check["bound"],
        )
        for one in series
        for check in one.run["fidelity"]["checks"]
    ]
    return table(["policy", "check", "", "measured", "bound"], rows, text_columns=3)


_ORDERS = {
    FlowOrder.LEVELS: "each policy's K strict-priority levels, flows of a level share fairly",
    FlowOrder.EXACT: "exact where a policy has an order, else its levels",
}


def facts(directory: RunDirectory) -> Markup:
    """What was run: the top of the resolved scenario, placement, scale, seed, notes and command."""
    summary = directory.summary
    scale = summary["scale"]
    rows: list[tuple[str, object]] = [("fabric", summary["fabric"]), ("seed", summary["seed"])]
    if set(scale.values()) != {1.0}:
        text = (
            f"1 model second in {scale['time_dilation']:g} wall seconds, "
            f"1 model byte as {scale['bytes_scale']:g} on the wire; all results in model units"
        )
        rows.append(("scale", text))
    orders = {run.get("order", FlowOrder.LEVELS) for run in summary["runs"]}
    rows += [("order of flows", _ORDERS[order]) for order in sorted(orders)]
    rows += list(_scenario_facts(directory.scenario_yaml))
    placement = summary.get("placement", [])
    if placement:
        rows.append(("placement", Markup("<br>".join(html(line) for line in placement))))
    for note in summary["notes"]:
        rows.append(("note", note))
    timing = directory.timing
    if timing.get("command"):
        rows.append(("command", Markup(f"<code>{html(timing['command'])}</code>")))
    if timing.get("started"):
        took = ", ".join(f"{policy} {seconds:.1f} s" for policy, seconds in timing["wall_s"].items())
        rows.append(("started", f"{timing['started']}; on the wall clock {took}"))
    items = "".join(f"<dt>{html(name)}</dt><dd>{html(value)}</dd>" for name, value in rows)
    return Markup(
        f"<dl>{items}</dl><details><summary>the whole resolved scenario</summary>"
        f"<div class=scroll><pre>{html(directory.scenario_yaml)}</pre></div></details>"
    )


def _scenario_facts(text: str) -> Iterable[tuple[str, str]]:
    scenario: Any = yaml.safe_load(text)
    if not isinstance(scenario, dict):
        return
    for name in ("topology", "model", "gpu", "units", "workload", "slo", "scheduler"):
        value = scenario.get(name)
        if isinstance(value, dict):
            parts = [
                f"{key} {len(item) if isinstance(item, list) else item}"
                for key, item in value.items()
                if item is not None
            ]
            yield name, ", ".join(parts)
        elif value is not None:
            yield name, str(value)
