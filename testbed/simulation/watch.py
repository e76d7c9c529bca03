"""What the links did, and whether the run kept the laws it rests on."""

from collections.abc import Mapping, Sequence

from controller.flow import Level, PortId
from testbed.record import Check, Fidelity, FlowRow, LinkSample
from testbed.simulation.network import FluidNetwork
from testbed.topology import Topology

_MOST_SAMPLES = 400
_FIRST_INTERVAL_NS = 1_000_000
_ROUNDING = 1e-6  # shares of a byte count that binary floating point may lose


class LinkWatch:
    """Samples what every port has sent, at a few hundred moments however long the run takes.

    When there are too many samples every other one is forgotten, and from then on half as many taken.
    """

    def __init__(self, network: FluidNetwork) -> None:
        self._network = network
        self._interval_ns = _FIRST_INTERVAL_NS
        self._samples: list[tuple[int, dict[PortId, tuple[int, ...]]]] = []

    def look(self, now_ns: int) -> None:
        """The network is settled at `now_ns`. Samples if the time has come."""
        if self._samples and now_ns < self._samples[-1][0] + self._interval_ns:
            return
        self._samples.append((now_ns, self._network.sent_bytes(now_ns)))
        if len(self._samples) > _MOST_SAMPLES:
            del self._samples[1::2]
            self._interval_ns *= 2

    def rows(self, end_ns: int) -> tuple[LinkSample, ...]:
        self._samples.append((end_ns, self._network.sent_bytes(end_ns)))
        none = (0,) * len(Level)
        return tuple(
            LinkSample(time_ns=time_ns, port=port, sent_bytes=sent, backlog_bytes=none, drops=none)
            for time_ns, ports in self._samples
            for port, sent in ports.items()
        )


def judge(
    topology: Topology,
    flows: Sequence[FlowRow],
    owed: Mapping[PortId, int],
    sent: Mapping[PortId, Sequence[int]],
    *,
    arrived: int,
    done: int,
    end_ns: int,
) -> Fidelity:
    """The invariants of docs/simulation.md. `owed` are the bytes that flows had for each port."""
    totals = {port: sum(levels) for port, levels in sent.items()}
    lost = max((_off(totals[port], owed.get(port, 0)) for port in totals), default=0.0)
    used = max(
        (totals[link.id] * 8e9 / (link.bps * end_ns) for link in topology.links if end_ns > 0), default=0.0
    )
    back = sum(not flow.submit_ns <= flow.permit_ns <= flow.finish_ns <= end_ns for flow in flows)
    checks = (
        _check("requests done / arrived", done / max(1, arrived), "= 1", "", done == arrived),
        _check("bytes sent by a port against those of its flows", lost, "<= 1e-06", "", lost <= _ROUNDING),
        _check("busiest port, whole run", used, "<= 1", "of its rate", used <= 1 + _ROUNDING),
        _check("flows whose times are out of order", float(back), "= 0", "", back == 0),
    )
    return Fidelity(faithful=all(check.ok for check in checks), checks=checks)


def _off(sent: int, owed: int) -> float:
    """Relative; each level's count is rounded to a byte, which is allowed for."""
    return max(0, abs(sent - owed) - len(Level)) / max(1, owed)


def _check(name: str, value: float, bound: str, unit: str, ok: bool) -> Check:
    advice = "" if ok else "a bug: report it"
    return Check(name=name, value=value, bound=bound, unit=unit, ok=ok, advice=advice)
