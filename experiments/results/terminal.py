"""The summary as tables and lines for a terminal (rich renderables)."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.fitted_table import FittedTable
from experiments.results.cure import command_at
from experiments.results.faults import fault_lines
from experiments.results.gap import gap_lines
from experiments.results.limit_words import alike_lines, limit_lines
from experiments.results.readable_numbers import check_value, duration, pruned_in_words, share
from experiments.results.real_layers import real_layer_lines
from experiments.results.summary import Summary
from testbed.record import FlowOrder


def summary_table(summary: Summary) -> Table:
    """Return a table with a line per policy, and one per SLO class if there are several, in model time."""
    table = _table(summary, gap=1)
    table.add_column("policy", overflow="fold")  # long names wrap, so that numbers are never cut
    headings = ["reqs\ndone", "TTFT\nmean", "TTFT\np50", "TTFT\np90", "TTFT\np99", "SLO\nmet"]
    for heading in [*headings, "mean\nCCT", "S3\nearly", "promo-\ntions", "faith-\nful"]:
        table.add_column(heading, justify="right", no_wrap=True)
    for run in summary["runs"]:
        ttft = run["ttft_s"]
        table.add_row(
            Text(run["policy"]),
            f"{run['completed']}/{run['requests']}",
            *(_tight(duration(ttft[name])) for name in ("mean", "p50", "p90", "p99")),
            _tight(share(run["slo_attainment"])),
            _tight(duration(run["cct_s"]["mean"])),
            _tight(duration(run["earliness_s"]["mean"])),
            str(run["promotions"]),
            _faithful(run),
        )
        for name, of_class in run.get("classes", {}).items():
            table.add_row(
                Text(f"  {name}"),
                f"{of_class['completed']}/{of_class['requests']}",
                *(_tight(duration(of_class["ttft_s"][part])) for part in ("mean", "p50", "p90", "p99")),
                _tight(share(of_class["slo_attainment"])),
            )
    return table


def warmup_lines(summary: Summary) -> Iterator[str]:
    """Say how many requests the table leaves out, if there was a warm-up."""
    left_out = {run.get("counts", {}).get("warmup", 0) for run in summary["runs"]} - {0}
    for count in sorted(left_out):
        yield f"left out: the first {count} requests (warm-up)"


def tpot_lines(summary: Summary) -> Iterator[str]:
    """Give the time per output token under each policy, if decoding was modelled."""
    for run in summary["runs"]:
        tpot = run.get("tpot_s", {})
        if tpot.get("mean") is not None:
            told = ", ".join(f"{name} {duration(value)}" for name, value in tpot.items())
            yield f"{run['policy']}: time per output token after the first {told}"


def background_lines(summary: Summary) -> Iterator[str]:
    """Give what background transfers carried under each policy, if there were any."""
    for run in summary["runs"]:
        if "background" in run:
            carried, took_s = run["background"], run["background"]["took_s"]
            yield (
                f"{run['policy']}: background {carried['bps'] / 1e9:.3g} Gb/s in {carried['transfers']}"
                f" transfers of {duration(took_s['mean'])} on average, p99 {duration(took_s['p99'])}"
            )


def _tight(text: str) -> str:
    """Remove the space before the unit, because eleven columns have to fit into 80 characters."""
    return text.replace(" ", "")


def flows_table(summary: Summary) -> Table | None:
    """Return a table with a line per policy and flow of a micro workload; `None` for other workloads."""
    if not any("flows" in run for run in summary["runs"]):
        return None
    table = _table(summary, gap=2)
    table.keys = 2
    table.add_column("policy", overflow="fold")
    table.add_column("flow", overflow="fold")
    table.add_column("stage")
    for heading in ("start", "finish", "took", "late", "level", "promotions"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in summary["runs"]:
        for flow in run.get("flows", ()):
            first, last = flow["level_first"], flow["level_last"]
            table.add_row(
                Text(run["policy"]),
                Text(flow["id"]),
                flow["stage"],
                duration(flow["start_s"]),
                duration(flow["finish_s"]),
                duration(flow["finish_s"] - flow["start_s"]),
                _late(flow),
                first if first == last else f"{first} to {last}",
                str(flow["promotions"]),
            )
        table.add_section()
    return table


def _late(flow: dict[str, Any]) -> str:
    """How long after its deadline a flow finished; empty without a deadline."""
    late_s = flow.get("lateness_s")
    return "" if late_s is None else duration(late_s)


def lateness_lines(summary: Summary) -> Iterator[str]:
    """Give the mean earliness and lateness of the S3 flows of a micro workload, if they have deadlines."""
    for run in summary["runs"]:
        late_s = run.get("lateness_s", {}).get("mean")
        if "flows" in run and late_s is not None:
            early_s = run["earliness_s"]["mean"]
            yield f"{run['policy']}: S3 on average {duration(late_s)} late and {duration(early_s)} early"


def coflows_table(summary: Summary) -> Table | None:
    """Return a table with a line per policy, in model time, for coflows; `None` for other workloads."""
    if not any(run.get("coflows") for run in summary["runs"]):
        return None
    table = _table(summary, gap=2)
    table.add_column("policy", overflow="fold")
    for heading in ("coflows", "flows", "CCT\nmean", "CCT\np50", "CCT\np90", "CCT\np99", "done\nafter"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("faith-\nful", justify="right")
    for run in summary["runs"]:
        times = run["coflow_completion_s"]
        table.add_row(
            Text(run["policy"]),
            str(run["coflows"]),
            str(sum(run["flows_by_stage"].values())),
            *(duration(times[name]) for name in ("mean", "p50", "p90", "p99")),
            duration(run["duration_s"]),
            _faithful(run),
        )
    return table


def _faithful(run: dict[str, Any]) -> Text:
    return Text("yes", "green") if run["fidelity"]["faithful"] else Text("NO", "bold red")


def fidelity_lines(summary: Summary) -> Iterator[str]:
    """For every check that failed, give the policy, the measured value, the bound, and what to change."""
    for run in summary["runs"]:
        failed = [check for check in run["fidelity"]["checks"] if not check["ok"]]
        for check in failed:
            yield (
                f"{run['policy']} is not faithful: {check['name']} is {check_value(check)}, "
                f"wanted {check['bound']}{_because(check)}. {check['advice']}".rstrip()
            )
        if not failed and not run["fidelity"]["faithful"]:
            yield f"{run['policy']} is not faithful; the fabric names no check"
        if run["verified"]["failed"]:
            yield f"{run['policy']}: {run['verified']['failed']} transfers delivered wrong bytes"


def _because(check: dict[str, Any]) -> str:
    reason = check.get("reason")
    return f" ({reason})" if reason else ""


def pruned_lines(summary: Summary) -> Iterator[str]:
    """Say how many requests were pruned under each policy, if any were."""
    for run in summary["runs"]:
        counts = run.get("counts", {})
        if counts.get("pruned"):
            yield f"{run['policy']}: {pruned_in_words(counts)}"


def cure_lines(summary: Summary, words: Sequence[str]) -> Iterator[str]:
    """Give the command, or without `words` the settings, with which the runs would have been faithful."""
    settings = summary.get("faithful_with", ())
    if settings and words:
        yield f"by what was measured, this would do: {command_at(words, settings)}"
    elif settings:
        yield f"by what was measured, this would do: --set {' --set '.join(settings)}"


def render_summary(summary: Summary, words: Sequence[str] = ()) -> Group:
    """Return what `mfs run` prints at its end: what limits the runs, the table for the workload, and lines on
    what to note. `words` is the command line of the run."""
    parts: list[RenderableType] = [Text(line) for line in limit_lines(summary)]
    parts += [Text(line, "yellow") for line in alike_lines(summary)]
    parts += [Text("")] if parts else []
    parts += [coflows_table(summary) or flows_table(summary) or summary_table(summary)]
    parts += [Text(line) for line in gap_lines(summary)]
    parts += [Text(line) for line in summary.get("unused", ())]
    parts += [Text(line) for line in summary.get("scale_notes", ())]
    parts += [
        Text(line)
        for line in (
            *fault_lines(summary),
            *warmup_lines(summary),
            *lateness_lines(summary),
            *tpot_lines(summary),
            *background_lines(summary),
            *pruned_lines(summary),
            *real_layer_lines(summary),
            *trace_lines(summary),
        )
    ]
    if summary["faithful"]:
        parts.append(Text("faithful: every check is within its bounds", "green"))
    parts += [Text(line, "red") for line in fidelity_lines(summary)]
    parts += [Text(line) for line in cure_lines(summary, words)]
    return Group(*parts)


def trace_lines(summary: Summary) -> Iterator[str]:
    """Say, once for all policies, whose trace does not show the whole run."""
    cut = [run["policy"] for run in summary["runs"] if run.get("trace_shows")]
    if cut:
        whose = "every policy" if 1 < len(cut) == len(summary["runs"]) else ", ".join(cut)
        yield (
            f"the trace of {whose} shows only a part of the run: the report says which, and"
            " --trace-window A:B chooses another"
        )


_ORDERS = {
    FlowOrder.LEVELS: "priority levels",
    FlowOrder.EXACT: "exact order",
    FlowOrder.HYBRID: "exact order at hosts",
}


def _orders(summary: Summary) -> str:
    orders = {run.get("order", FlowOrder.LEVELS) for run in summary["runs"]}
    return " and ".join(_ORDERS[order] for order in sorted(orders))


def _table(summary: Summary, *, gap: int) -> FittedTable:
    scale = summary["scale"]
    title = f"{summary['scenario']} on {summary['fabric']} in {_orders(summary)}, seed {summary['seed']}"
    if set(scale.values()) != {1.0}:
        title += f", time x{scale['time_dilation']:g}, bytes x{scale['bytes_scale']:g}"
    return FittedTable(title=Text(title), gap=gap)
