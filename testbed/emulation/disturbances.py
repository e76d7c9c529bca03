"""What disturbed a run on its way: processes that paused, links that were down, flows that got nothing.

The other fidelity checks are shares and percentiles over the whole run. A few seconds hardly change those,
but they can double the time of the requests that they meet. Each check here names its culprit.
"""

import bisect
from collections.abc import Mapping, Sequence

import msgspec

from controller.flow import Stage
from controller.pulse import Pause
from controller.units import NS_PER_S
from testbed.emulation.delays import MOMENT_BOUND, WallYardstick
from testbed.emulation.links import Down
from testbed.emulation.monitor import Sample
from testbed.record import Check, FlowRow
from testbed.serving.yardsticks import Yardstick
from workers.protocol import Records

SILENCE_BOUND_MS = 1000.0
"""Not relative: the samples that it is measured with are 250 ms apart, whatever the scale."""

_WHY = "one such moment may lengthen what it meets by a fifth"

_RUN_AGAIN = "Run it again with nothing else on the machine."
_MOST_NAMED = 3


class WallClock(msgspec.Struct, frozen=True, kw_only=True):
    """Model time 0 is CLOCK_MONOTONIC `zero_wall_ns`; a model second takes `time_dilation` wall seconds."""

    zero_wall_ns: int
    time_dilation: float

    def model_s(self, wall_ns: int) -> float:
        return (wall_ns - self.zero_wall_ns) / self.time_dilation / NS_PER_S

    def wall_ms(self, model_ns: int) -> float:
        return model_ns * self.time_dilation / 1e6

    def lasted(self, begin_wall_ns: int, wall_ns: int) -> str:
        begin_s = max(0.0, self.model_s(begin_wall_ns))
        return f"for {wall_ns / NS_PER_S:.2f} s of wall time from {begin_s:.3f} s of model time on"


def disturbances(
    *,
    pauses: Mapping[str, Pause],
    outages: Sequence[Down],
    records: Sequence[Records],
    flows: Sequence[FlowRow],
    samples: Sequence[Sample],
    clock: WallClock,
    whole: Yardstick | None,
) -> list[Check]:
    """The checks. `pauses` has the longest pause of each process by its name, `outages` the longest of each
    link, the longest first. `whole` is what a single moment delays."""
    against = WallYardstick(of=whole, time_dilation=clock.time_dilation)
    return [
        _pauses(pauses, clock, against),
        _outages(outages, clock),
        _silence(flows, samples, clock),
        _slowest_permit(records, against),
        _latest_wakeup(records, against),
    ]


def _pauses(pauses: Mapping[str, Pause], clock: WallClock, against: WallYardstick) -> Check:
    ranked = sorted(pauses.items(), key=lambda named: -named[1].wall_ns)

    def check(wall_ns: int | None, advice: str) -> Check:
        delay_ms = None if wall_ns is None else wall_ns / 1e6
        return against.check("longest pause of a process", delay_ms, MOMENT_BOUND, why=_WHY, advice=advice)

    over = [
        f"{who} did not run {clock.lasted(pause.begin_wall_ns, pause.wall_ns)}"
        for who, pause in ranked
        if not check(pause.wall_ns, "").ok
    ]
    advice = f"{_named(over)}: stopped, or without CPU time. {_RUN_AGAIN}"
    return check(ranked[0][1].wall_ns if ranked else None, advice)


def _outages(outages: Sequence[Down], clock: WallClock) -> Check:
    down = [f"{one.link} was down {clock.lasted(one.begin_wall_ns, one.wall_ns)}" for one in outages]
    longest_ms = outages[0].wall_ns / 1e6 if outages else 0.0
    advice = f"{_named(down)}. A run takes no link down: find out what did."
    return _at_most("longest time a link was down", longest_ms, 0.0, advice)


def _silence(flows: Sequence[FlowRow], samples: Sequence[Sample], clock: WallClock) -> Check:
    """The longest time in which a permitted flow was not done and no port on its path sent a byte.

    While a flow waits behind others, some port on its path sends those. Shares of collectives wait for the
    other ranks, too, so they do not count. A pause counts from sample to sample.
    """
    times = [sample.time_ns for sample in samples]
    longest_ns, culprit = 0, ""
    for flow in flows:
        if flow.stage is Stage.COLLECTIVE or not flow.path:
            continue
        first = bisect.bisect_left(times, flow.permit_ns)
        last = bisect.bisect_right(times, flow.finish_ns) - 1
        quiet_since = first
        for i in range(first + 1, last + 1):
            before, after = samples[i - 1].ports, samples[i].ports
            if any(before[port].sent_bytes != after[port].sent_bytes for port in flow.path):
                quiet_since = i
            elif times[i] - times[quiet_since] > longest_ns:
                longest_ns = times[i] - times[quiet_since]
                since_s = times[quiet_since] / NS_PER_S
                culprit = f"flow {flow.id} on {', '.join(flow.path)} from {since_s:.3f} s of model time on"
    advice = f"{culprit}: nothing on its path sent a byte, though it had its permit. {_RUN_AGAIN}"
    value = clock.wall_ms(longest_ns) if len(samples) > 1 else None
    return _at_most("longest time without delivery while a flow was due", value, SILENCE_BOUND_MS, advice)


def _slowest_permit(records: Sequence[Records], against: WallYardstick) -> Check:
    name = "permit latency max"
    slowest = max(
        (sent for record in records for sent in record.sent),
        key=lambda sent: sent.permit_latency_wall_ns,
        default=None,
    )
    if slowest is None:
        return against.check(name, None, MOMENT_BOUND, why=_WHY, advice="")
    at_s = slowest.submit_ns / NS_PER_S
    advice = (
        f"flow {slowest.transfer.id} of rank {slowest.transfer.src} waited, submitted at {at_s:.3f} s of"
        f" model time. {_RUN_AGAIN}"
    )
    slowest_ms = slowest.permit_latency_wall_ns / 1e6
    return against.check(name, slowest_ms, MOMENT_BOUND, why=_WHY, advice=advice)


def _latest_wakeup(records: Sequence[Records], against: WallYardstick) -> Check:
    late = {record.rank: max(record.late_wakeups_ms, default=0.0) for record in records}
    rank = max(late, key=late.__getitem__, default=None)
    value = None if rank is None else late[rank]
    advice = f"rank {rank} woke up late. {_RUN_AGAIN}"
    return against.check("late wake-ups of timed compute max", value, MOMENT_BOUND, why=_WHY, advice=advice)


def _named(culprits: Sequence[str]) -> str:
    more = len(culprits) - _MOST_NAMED
    return "; ".join(culprits[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _at_most(name: str, value_ms: float | None, bound_ms: float, advice: str) -> Check:
    ok = value_ms is None or value_ms <= bound_ms
    return Check(
        name=name, value=value_ms, bound=f"<= {bound_ms:g}", unit="ms", ok=ok, advice="" if ok else advice
    )
