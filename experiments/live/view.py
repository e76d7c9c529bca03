"""What `mfs top` shows of a run: a few lines and two tables that fit into 50 columns, or one plain line."""

from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from controller.flow import Level
from controller.units import NS_PER_S
from experiments.live.live_file import LiveRun
from experiments.results.readable_numbers import duration, share
from testbed.live import FlowsNow, PortNow, RequestsNow

_BAR = 6
_NONE_YET = "none decided yet"


def rendered(run: LiveRun) -> Group:
    """Return lines and tables for a terminal."""
    parts: list[RenderableType] = [Text(_heading(run), "bold"), Text(_progress(run))]
    live = run.progress.live
    if live is None:
        return Group(*parts)
    if live.requests is not None:
        parts += [Text(""), *(Text(line) for line in _request_lines(live.requests))]
    if live.flows is not None:
        parts += [Text(f"permits   {_permits(live.flows)}"), Text(""), _levels_table(live.flows)]
    if live.ports:
        parts += [Text(""), _ports_table(live.ports)]
        if len(live.ports) < live.ports_in_all:
            parts.append(Text(f"the busiest {len(live.ports)} of {live.ports_in_all} ports", "dim"))
    return Group(*parts)


def plain_line(run: LiveRun) -> str:
    """Return one line, for an output that is no terminal."""
    parts = [f"{run.policy}: {_progress(run)}"]
    live = run.progress.live
    if live is not None and live.requests is not None:
        now = live.requests
        parts += [
            f"{now.queued} queued, {now.prefilling} in prefill, {now.decoding} to decode",
            f"SLO {_attainment(now)}",
        ]
    if live is not None and live.flows is not None:
        parts += [f"{sum(live.flows.sending)} flows sending", f"permits {_permits(live.flows)}"]
    if live is not None and live.ports:
        parts.append(f"busiest port {live.ports[0].port} {live.ports[0].busy:.0%}")
    return "; ".join(parts)


def _heading(run: LiveRun) -> str:
    number = run.policies.index(run.policy) + 1 if run.policy in run.policies else 0
    which = f", policy {number} of {len(run.policies)}" if number and len(run.policies) > 1 else ""
    return f"{run.scenario} on {run.fabric}: {run.policy}{which}"


def _progress(run: LiveRun) -> str:
    state = run.progress
    done = f" {state.done}/{state.total}" if state.total else ""
    at = f", model time {duration(state.live.time_ns / NS_PER_S)}" if state.live is not None else ""
    return f"{state.phase}{done}, {state.wall_s:.0f} s{at}"


def _request_lines(now: RequestsNow) -> Iterator[str]:
    arrived = now.queued + now.prefilling + now.decoding + now.done
    yield f"requests  {now.queued} queued, {now.prefilling} in prefill, {now.decoding} to decode,"
    yield f"          {now.done} done, {now.total - arrived} to come"
    yield f"SLO       {_attainment(now)}"


def _attainment(now: RequestsNow) -> str:
    decided = now.met + now.missed
    return f"{now.met} of {decided} met ({share(now.met / decided)})" if decided else _NONE_YET


def _permits(now: FlowsNow) -> str:
    if not now.latencies_wall_ms:
        return str(now.permits)
    middle, most = np.percentile(now.latencies_wall_ms, [50, 99])
    return f"{now.permits}; last p50 {middle:.1f} ms, p99 {most:.1f} ms"


def _levels_table(now: FlowsNow) -> Table:
    table = _table()
    table.add_column("level")
    for heading in ("flows sending", "waiting for a lane"):
        table.add_column(heading, justify="right")
    for level in Level:
        if now.sending[level] or now.waiting[level]:
            table.add_row(level.name, str(now.sending[level]), str(now.waiting[level]))
    table.add_row("all", str(sum(now.sending)), str(sum(now.waiting)))
    if now.changing:
        table.add_row("changing", str(now.changing), "")
    return table


def _ports_table(ports: Sequence[PortNow]) -> Table:
    table = _table()
    table.add_column("port")
    table.add_column("busy", justify="right")
    table.add_column("", no_wrap=True)
    table.add_column("backlog", justify="right")
    table.add_column("by level")
    for port in ports:
        table.add_row(
            port.port,
            f"{port.busy:.0%}",
            "█" * min(_BAR, round(port.busy * _BAR)),
            duration(port.backlog_ns / NS_PER_S) if port.backlog_ns else "",
            _levels(port),
        )
    return table


def _levels(port: PortNow) -> str:
    """Return the levels that take a hundredth of the line or more, the most used first."""
    used = sorted((-part, level) for level, part in zip(Level, port.shares, strict=True) if part >= 0.01)
    return " ".join(f"{level.name} {-part:.0%}" for part, level in used[:2])


def _table() -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
