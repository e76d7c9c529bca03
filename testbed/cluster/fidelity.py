"""Whether a run on real servers can be trusted. Nothing here sees the switches: their queues are not read.

So the checks are about the servers: whether links carried what the scenario says, whether permits came in
time, whether clocks agree, and whether levels were put in force at all.
"""

from collections.abc import Mapping, Sequence

import msgspec

from controller.flow import Decision, PortId
from controller.pulse import Pause
from controller.units import NS_PER_S
from testbed.cluster.clocks import Drift
from testbed.coordinator.checks import IDLE_BOUND, PROBE_BOUND, RETRANSMIT_BOUND, at_least, at_most
from testbed.coordinator.delays import WallYardstick, permit_checks, wakeup_check
from testbed.coordinator.gathered import Gathered
from testbed.coordinator.lapses import WallClock, latest_wakeup, pauses_check, slowest_permit
from testbed.coordinator.line_check import Line
from testbed.coordinator.ranks import ProbeResult
from testbed.job import Job
from testbed.record import Check, Fidelity
from testbed.serving.yardsticks import Yardstick, Yardsticks

FASTER_BOUND = 1.1
CLOCK_BOUND_MS = 1.0

_PACKETS_AT_ONCE = 2
_ETHERNET_BYTES = 14

_BUSY = "find out what else runs on the servers, or use fewer ranks on each"
_LINKS = (
    "the links do not have the rates that topology.nic_gbps and scale give them: measure them with"
    " `mfs cluster doctor`"
)
_CLOCKS = "keep the clocks of all servers with chrony or PTP, and give the control plane a calm network"


class Servers(msgspec.Struct, frozen=True, kw_only=True):
    """What the agents have said in a run. By host: the mean idle share of CPU time, and the TCP segments sent
    and sent again. `mtu` is the smallest MTU on the data network."""

    idle: dict[str, float]
    segments: dict[str, tuple[int, int]]
    mtu: int


def payload_share(mtu: int) -> float:
    """Payload of a full packet over its bytes on the line: with Ethernet, IP and TCP headers, timestamps."""
    return (mtu - 52) / (mtu + _ETHERNET_BYTES)


def _carried(probes: Sequence[ProbeResult], mtu: int) -> list[float]:
    """What each probed path carried, of its part of the line rate."""
    return [p.delivered_bps / p.nominal_bps / payload_share(mtu) for p in probes]


def lines_of(
    job: Job, probes: Sequence[ProbeResult], drifts: Mapping[str, Drift], mtu: int
) -> dict[PortId, Line]:
    """What each port of the network of `job` carries.

    Links may be as much faster than the scenario says as the probes found. The two packets besides are for
    ports in software, as in a rehearsal. Both ends of a flow have clocks that are not known exactly.
    """
    faster = max([1.0, *_carried(probes, mtu)])
    packets = _PACKETS_AT_ONCE * (mtu + _ETHERNET_BYTES) / job.scale.bytes_scale
    unsure_ns = 2 * max((max(d.before.error_ns, d.after.error_ns) for d in drifts.values()), default=0)
    unsure_s = unsure_ns / NS_PER_S / job.scale.time_dilation
    return {
        link.id: Line(bps=faster * link.bps, besides_bytes=packets + link.bps / 8 * unsure_s)
        for link in job.topology.links
    }


def judge(
    *,
    probes: Sequence[ProbeResult],
    servers: Servers,
    gathered: Gathered,
    pauses: Mapping[str, Pause],
    clock: WallClock,
    drifts: Mapping[str, Drift],
    enforced: bool,
    yardsticks: Yardsticks,
    more: Sequence[Check] = (),
) -> Fidelity:
    """Check a run. `drifts` are by agent, `yardsticks` those of the job. It is faithful if every measure is
    within its bound, and if all checks of `more` are passed."""

    def against(of: Yardstick | None) -> WallYardstick:
        return WallYardstick(of=of, time_dilation=clock.time_dilation)

    carried = _carried(probes, servers.mtu)
    late_ms = [late for delays in gathered.late_ms.values() for late in delays]
    sent = sum(out for out, _ in servers.segments.values())
    again = sum(repeated for _, repeated in servers.segments.values())
    busiest = min(servers.idle, key=servers.idle.__getitem__, default="")
    checks = [
        at_least(
            "delivered rate, all links probed at once",
            min(carried, default=None),
            PROBE_BOUND,
            "of nominal",
            _LINKS,
        ),
        at_most(
            "fastest link, all links probed at once",
            max(carried, default=None),
            FASTER_BOUND,
            "of nominal",
            _LINKS,
        ),
        at_least(
            "CPU headroom of the busiest server",
            servers.idle.get(busiest),
            IDLE_BOUND,
            "idle",
            f"{busiest}: {_BUSY}",
        ),
        *permit_checks(gathered.permit_ms, against(yardsticks.transfer)),
        at_most(
            "TCP retransmits",
            again / sent if sent else None,
            RETRANSMIT_BOUND,
            "of segments",
            "find the losses",
        ),
        wakeup_check(late_ms, against(yardsticks.compute)),
        *_clock_checks(drifts),
        _levels(gathered.decisions, enforced),
        pauses_check(pauses, clock, against(yardsticks.whole)),
        slowest_permit(gathered.permits, against(yardsticks.whole)),
        latest_wakeup(gathered.late_ms, against(yardsticks.whole)),
        *more,
    ]
    return Fidelity(faithful=all(check.ok for check in checks), checks=tuple(checks))


def _clock_checks(drifts: Mapping[str, Drift]) -> list[Check]:
    """How well clocks are known, and how far they ran apart. Rows of requests are not corrected for that."""
    unsure = {name: max(d.before.error_ns, d.after.error_ns) / 1e6 for name, d in drifts.items()}
    drifted = {name: abs(drift.total_ns) / 1e6 for name, drift in drifts.items()}
    checks = []
    for what, values in (
        ("error of clock offsets max", unsure),
        ("drift of clocks over the run max", drifted),
    ):
        worst = max(values, key=values.__getitem__, default="")
        checks.append(at_most(what, values.get(worst), CLOCK_BOUND_MS, "ms", f"{worst}: {_CLOCKS}"))
    return checks


def _levels(decisions: Sequence[Decision], enforced: bool) -> Check:
    """Without marks a run is as the policy wants it only if all flows have one level from first to last."""
    levels = {decision.level_to for decision in decisions}
    return at_most(
        "levels that were decided and not put in force",
        0 if enforced or len(levels) < 2 else len(levels),
        0,
        "levels",
        "the inventory has enforcement: none; use dscp, or a policy with one level (fair)",
    )
