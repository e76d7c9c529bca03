"""The tables with a line for each run: means, shares and counts."""

from collections.abc import Sequence
from typing import Any

from experiments.report.markup import Markup, html, table
from experiments.report.series import MOST_FLOWS, Series
from experiments.results.gap import percent_closed
from experiments.results.limit_words import TTFT_PARTS, limit_name, parts_of_ttft, percent
from experiments.results.readable_numbers import NOTHING, duration, pruned_in_words, share
from experiments.results.reading import RunDirectory


def summary(series: Sequence[Series]) -> Markup:
    """Table with a line per series, followed by its SLO classes. Small numbers are changes from the first
    series."""
    first = series[0].run
    rows: list[Sequence[object]] = []
    for one in series:
        run = one.run
        rows.append(
            (
                one.named,
                f"{run['completed']}/{run['requests']}",
                _against(run["ttft_s"]["mean"], first["ttft_s"]["mean"]),
                *(duration(run["ttft_s"][name]) for name in ("p50", "p90", "p99")),
                share(run["slo_attainment"]),
                _against(run["cct_s"]["mean"], first["cct_s"]["mean"]),
                _against(run["exposed_s1_s"]["mean"], first["exposed_s1_s"]["mean"]),
                _against(run["earliness_s"]["mean"], first["earliness_s"]["mean"]),
                _against(_lateness(run), _lateness(first)),
                run["promotions"],
                "yes" if run["fidelity"]["faithful"] else Markup("<b class=no>no</b>"),
            )
        )
        for name, found in run.get("classes", {}).items():
            rows.append(_class_row(name, found))
    headings = ["policy", "done", "TTFT mean", "p50", "p90", "p99", "SLO met", "mean CCT"]
    headings += ["exposed S1", "S3 earliness", "S3 lateness", "promotions", "faithful"]
    return table(headings, rows, text_columns=1)


def _lateness(run: dict[str, Any]) -> float | None:
    """The mean lateness; None in the results of an older run."""
    mean: float | None = run.get("lateness_s", {}).get("mean")
    return mean


def limits(series: Sequence[Series]) -> Markup:
    """Table of what limits each series: busy shares, and the parts of the mean TTFT. Empty without limits."""
    rows: list[Sequence[object]] = []
    for one in series:
        found = one.run.get("limits")
        if found is None:
            continue
        parts = dict(parts_of_ttft(found))
        rows.append(
            (
                one.named,
                limit_name(found),
                _of_second(found["occupied"]),
                _of_second(found["computing"]),
                found["port"] or NOTHING,
                _of_second(found["port_busy"]),
                *(percent(parts.get(name)) for name in TTFT_PARTS.values()),
            )
        )
    if not rows:
        return Markup("")
    headings = ["policy", "limit", "GPUs busy", "computing", "busiest port", "busy"]
    said = (
        "<p>Shares of time, and below them those of the busiest second. From <i>queue</i> on, shares of the "
        "mean TTFT.</p>"
    )
    return Markup(said + table([*headings, *TTFT_PARTS.values()], rows, text_columns=2))


def ceiling(directories: Sequence[RunDirectory]) -> Markup:
    """Table of what each run reached of what a network that takes no time would; empty without ceilings."""
    parts = []
    for directory in directories:
        found = directory.summary.get("ceiling")
        if not found:
            continue
        rows = [
            (
                policy,
                percent_closed(closed["slo_attainment"]),
                percent_closed(closed["ttft_mean_s"]),
                *_reached(found["same_batches"].get(policy)),
            )
            for policy, closed in found["closed"].items()
        ]
        met, ttft = _reached(found["own_batches"])
        parts.append(
            f"<p>Ceiling, a network that takes no time: SLO met {html(met)}, mean TTFT {html(ttft)}. "
            f"How much of the gap between {html(found['reference'])} and it each policy closes, and what its "
            "own batches would reach without a network:</p>"
        )
        headings = ["policy", "of the SLO gap", "of the TTFT gap", "its batches: SLO met", "mean TTFT"]
        parts.append(table(headings, rows, text_columns=1))
        parts += [f"<p>{html(policy)}: {html(why)}</p>" for policy, why in found["reasons"].items()]
    return Markup("".join(parts))


def _reached(reached: dict[str, float | None] | None) -> tuple[str, str]:
    if reached is None:
        return NOTHING, NOTHING
    return share(reached["slo_attainment"]), duration(reached["ttft_mean_s"])


def _of_second(busy: dict[str, float] | None) -> object:
    """A busy share, with that of the busiest second in small."""
    if busy is None:
        return NOTHING
    return Markup(f"{percent(busy['mean'])} <small>{percent(busy['busiest'])}</small>")


def _class_row(name: str, found: dict[str, Any]) -> Sequence[object]:
    """The line of one SLO class, below the line of all requests."""
    return (
        Markup(f"&emsp;{html(name)}"),
        f"{found['completed']}/{found['requests']}",
        *(duration(found["ttft_s"][part]) for part in ("mean", "p50", "p90", "p99")),
        share(found["slo_attainment"]),
        *[""] * 6,
    )


def tpot(series: Sequence[Series]) -> Markup:
    """Table of the time per output token; empty if no series has one."""
    told = [(one, one.run.get("tpot_s") or {}) for one in series]
    rows = [
        (one.named, *(duration(times[name]) for name in ("mean", "p50", "p99")))
        for one, times in told
        if times.get("mean") is not None
    ]
    if not rows:
        return Markup("")
    headings = ["time per output token", "mean", "p50", "p99"]
    return table(headings, rows, text_columns=1)


def left_out(series: Sequence[Series]) -> Markup:
    """A sentence on how many requests are warm-up and not measured; empty if none are."""
    counts = sorted({one.run.get("counts", {}).get("warmup", 0) for one in series} - {0})
    return Markup("".join(f"<p>Left out: the first {count} requests, which warm up.</p>" for count in counts))


def pruned(series: Sequence[Series]) -> Markup:
    """A sentence per series on how many requests were pruned; empty if none were."""
    told = [(one, one.run.get("counts", {})) for one in series]
    return Markup(
        "".join(
            f"<p>{one.named}: {pruned_in_words(counts)}.</p>" for one, counts in told if counts.get("pruned")
        )
    )


def micro_flows(series: Sequence[Series]) -> Markup:
    """Table of the flows of a micro workload, at most `MOST_FLOWS` per series."""
    rows = [
        (
            one.named,
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
    """Table with a line per series of coflows. The small number is the change from the first series."""
    first = series[0].run["coflow_completion_s"]["mean"]
    rows = []
    for one in series:
        times = one.run["coflow_completion_s"]
        rows.append(
            (
                one.named,
                one.run["coflows"],
                sum(one.run["flows_by_stage"].values()),
                _against(times["mean"], first),
                *(duration(times[name]) for name in ("p50", "p90", "p99")),
                duration(one.run["duration_s"]),
                "yes" if one.run["fidelity"]["faithful"] else Markup("<b class=no>no</b>"),
            )
        )
    headings = [
        "policy",
        "coflows",
        "flows",
        "completion mean",
        "p50",
        "p90",
        "p99",
        "done after",
        "faithful",
    ]
    return table(headings, rows, text_columns=1)


def caches(series: Sequence[Series]) -> Markup:
    """Table of prefix cache use: a line per series and unit, and the sum of several units."""
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
                    one.named,
                    name,
                    counts["requests"],
                    f"{counts['prompt_tokens']:,}",
                    *(_of(counts[f"{kind}_tokens"], reusable) for kind in ("local", "remote", "missed")),
                    f"{counts['evicted_blocks']:,}",
                )
            )
    if not rows:
        return Markup("<p>This run recorded nothing about prefix caches.</p>")
    headings = ["policy", "unit", "requests", "prompt tokens", "on the replica", "fetched (S1)", "missed"]
    return table([*headings, "evicted blocks"], rows, text_columns=2)


def _of(tokens: int, reusable: int) -> Markup:
    """Tokens, and below them their share of the tokens that could have been reused."""
    return Markup(f"{tokens:,}<small>{share(tokens / reusable if reusable else None)}</small>")


def _against(value: float | None, reference: float | None) -> Markup:
    """A duration, and below it the change from the first series."""
    text = html(duration(value))
    if value is None or not reference or value == reference:
        return text
    return Markup(f"{text}<small>{_signed(100 * (value / reference - 1))} %</small>")


def _signed(percents: float) -> str:
    """Return whole per cent with their sign: "+12", "-3", or "0" for less than half of one."""
    return f"{round(percents):+d}" if round(percents) else "0"
