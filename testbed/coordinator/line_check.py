"""The check that ports have sent no more than their lines carry, on any fabric. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

from controller.flow import PortId
from controller.units import NS_PER_S
from testbed.coordinator.lapses import WallClock
from testbed.coordinator.lines import Ahead, Crossing, by_port, most_ahead
from testbed.record import Check


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What a port carries: its rate in model bits/s, and the model bytes that it may pass besides: at once,
    after it was idle, or because times are not known better."""

    bps: float
    besides_bytes: float


def line_check(
    crossings: Iterable[Crossing], lines: Mapping[PortId, Line], bytes_scale: float, clock: WallClock
) -> Check:
    """The check that no port has sent more than its line carries. It names the port furthest ahead."""
    worst: tuple[float, PortId, Ahead] | None = None
    for port, crossed in by_port(crossings).items():
        line = lines[port]
        ahead = most_ahead(crossed, line.bps)
        if ahead is not None and (worst is None or ahead.ahead_bytes / line.besides_bytes > worst[0]):
            worst = ahead.ahead_bytes / line.besides_bytes, port, ahead
    value, reason, advice = 0.0, "", ""
    if worst is not None:
        value, port, ahead = worst

        def kb(model_bytes: float) -> str:
            return f"{model_bytes * bytes_scale / 1e3:.1f} kB"

        begin_s, took_ms = ahead.begin_ns / NS_PER_S, clock.wall_ms(ahead.end_ns - ahead.begin_ns)
        reason = (
            f"port {port} sent {kb(ahead.sent_bytes)} in {took_ms:.1f} ms of wall time from {begin_s:.3f} s"
            f" of model time on, to the end of flow {ahead.last}: {kb(ahead.ahead_bytes)} more than its line"
            f" carries. It may pass {kb(lines[port].besides_bytes)} at once"
        )
        advice = (
            f"port {port} is faster than its line, lets too much pass at once, or flows do not cross it:"
            " compare its rate and its burst with those that the scenario and its scale give it"
        )
    ok = value <= 1.0
    return Check(
        name="bytes ahead of the line of a port max",
        value=value,
        bound="<= 1",
        unit="of what may pass at once",
        ok=ok,
        advice="" if ok else advice,
        reason=reason,
    )
