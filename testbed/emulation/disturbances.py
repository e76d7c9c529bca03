"""What disturbed a run on its way: processes that paused, links that were down, flows that got nothing.

The other fidelity checks are shares and percentiles over the whole run. A few seconds hardly change those,
but they can double the time of the requests that they meet. Each check here names its culprit.
"""

import bisect
from collections.abc import Mapping, Sequence

import msgspec

from controller.flow import PortId, Stage
from controller.pulse import Pause
from controller.units import NS_PER_S
from testbed.coordinator.delays import WallYardstick
from testbed.coordinator.lapses import (
    RUN_AGAIN,
    WallClock,
    latest_wakeup,
    named,
    pauses_check,
    slowest_permit,
)
from testbed.coordinator.outages import Down
from testbed.emulation.asked import SETTLE_S, Asked, Window, longest_outside
from testbed.emulation.monitor import Sample
from testbed.faults import LinkFault, RankPause
from testbed.record import Check, FlowRow
from testbed.serving.yardsticks import Yardstick
from workers.protocol import Records, SentFlow

SILENCE_BOUND_MS = 1000.0
"""Not relative: the samples that it is measured with are 250 ms apart, whatever the scale."""

FAULT_LATE_MS = 250.0


def disturbances(
    *,
    pauses: Mapping[str, Pause],
    outages: Sequence[Down],
    records: Sequence[Records],
    flows: Sequence[FlowRow],
    samples: Sequence[Sample],
    clock: WallClock,
    whole: Yardstick | None,
    asked: Sequence[Asked] = (),
    fault_late_ms: float | None = None,
) -> list[Check]:
    """The checks. `pauses` has the longest pause of each process by its name, `outages` the longest of each
    link, the longest first. `whole` is what a single moment delays.

    `asked` are the faults that the scenario asked for: what they explain is no disturbance, and `outages` is
    without them. With faults, there is a check more, on `fault_late_ms`: by how much one began or ended late.
    """
    against = WallYardstick(of=whole, time_dilation=clock.time_dilation)
    checks = [
        pauses_check(pauses, clock, against),
        _outages(outages, clock),
        _silence(flows, samples, clock, asked),
        slowest_permit(records, against),
        latest_wakeup(records, against),
    ]
    if fault_late_ms is not None:
        advice = f"the machine was too busy to make faults in time. {RUN_AGAIN}"
        checks.append(_at_most("fault that came latest", fault_late_ms, FAULT_LATE_MS, advice))
    return checks


def _outages(outages: Sequence[Down], clock: WallClock) -> Check:
    down = [f"{one.link} was down {clock.lasted(one.begin_wall_ns, one.wall_ns)}" for one in outages]
    longest_ms = outages[0].wall_ns / 1e6 if outages else 0.0
    advice = f"{named(down)}. A run takes no link down: find out what did."
    return _at_most("longest time a link was down", longest_ms, 0.0, advice)


def _silence(
    flows: Sequence[FlowRow], samples: Sequence[Sample], clock: WallClock, asked: Sequence[Asked]
) -> Check:
    """The longest time in which a permitted flow was not done and no port on its path sent a byte.

    While a link on its path is upset because the scenario asked for it, that is no silence.

    While a flow waits behind others, some port on its path sends those. Shares of collectives wait for the
    other ranks, too, so they do not count. A pause counts from sample to sample.
    """
    times = [sample.time_ns for sample in samples]
    longest_ns, culprit = 0, ""
    upset, held = _upset(samples, asked), _held(samples, asked)
    for flow in flows:
        if flow.stage is Stage.COLLECTIVE or not flow.path:
            continue
        first = bisect.bisect_left(times, flow.permit_ns)
        last = bisect.bisect_right(times, flow.finish_ns) - 1
        quiet_since = first
        for i in range(first + 1, last + 1):
            before, after = samples[i - 1].ports, samples[i].ports
            moved = any(before[port].sent_bytes != after[port].sent_bytes for port in flow.path)
            if moved or not upset[i].isdisjoint(flow.path) or not held[i].isdisjoint((flow.src, flow.dst)):
                quiet_since = i
            elif times[i] - times[quiet_since] > longest_ns:
                longest_ns = times[i] - times[quiet_since]
                since_s = times[quiet_since] / NS_PER_S
                culprit = f"flow {flow.id} on {', '.join(flow.path)} from {since_s:.3f} s of model time on"
    advice = f"{culprit}: nothing on its path sent a byte, though it had its permit. {RUN_AGAIN}"
    value = clock.wall_ms(longest_ns) if len(samples) > 1 else None
    return _at_most("longest time without delivery while a flow was due", value, SILENCE_BOUND_MS, advice)


def _upset(samples: Sequence[Sample], asked: Sequence[Asked]) -> list[set[PortId]]:
    """The ports that were upset at some time between each sample and the one before it."""
    found: list[set[PortId]] = [set() for _ in samples]
    for one in asked:
        for i in range(1, len(samples)):
            begin_ns, end_ns = samples[i - 1].wall_ns, samples[i].wall_ns
            if isinstance(one.fault, LinkFault) and one.upset and one.upset.overlaps(begin_ns, end_ns):
                found[i] |= set(one.fault.ports)
    return found


def _held(samples: Sequence[Sample], asked: Sequence[Asked]) -> list[set[int]]:
    """The ranks that were paused between each sample and the one before it, or until just before."""
    found: list[set[int]] = [set() for _ in samples]
    for one in asked:
        for i in range(1, len(samples)):
            window = one.window.wider(0.0, SETTLE_S)
            if isinstance(one.fault, RankPause) and window.overlaps(
                samples[i - 1].wall_ns, samples[i].wall_ns
            ):
                found[i].add(one.fault.rank)
    return found


def pauses_of(rank: int, asked: Sequence[Asked]) -> list[Window]:
    """When a rank was paused because the scenario asked for it, with some slack."""
    return [
        one.window.wider(SETTLE_S, SETTLE_S)
        for one in asked
        if isinstance(one.fault, RankPause) and one.fault.rank == rank
    ]


def unasked_pause(record: Records, asked: Sequence[Asked]) -> Pause:
    """The longest pause of a rank, or part of one, that nobody asked for."""
    windows = pauses_of(record.rank, asked)
    parts = [
        longest_outside(pause.begin_wall_ns, pause.begin_wall_ns + pause.wall_ns, windows)
        for pause in (record.longest_pause, *record.pauses)
    ]
    begin_ns, wall_ns = max(parts, key=lambda part: part[1])
    return Pause(begin_wall_ns=begin_ns, wall_ns=wall_ns)


def with_undisturbed(record: Records, asked: Sequence[Asked], clock: WallClock) -> Records:
    """The record of a rank without the flows whose permits came while it was paused, as asked for."""
    windows = pauses_of(record.rank, asked)
    if not windows:
        return record

    def waited(sent: SentFlow) -> tuple[int, int]:
        begin_ns = clock.zero_wall_ns + round(sent.submit_ns * clock.time_dilation)
        lane_ns = round(sent.lane_wait_ns * clock.time_dilation)
        return begin_ns, begin_ns + lane_ns + sent.permit_latency_wall_ns

    kept = [sent for sent in record.sent if not any(window.overlaps(*waited(sent)) for window in windows)]
    return msgspec.structs.replace(record, sent=tuple(kept))


def _at_most(name: str, value_ms: float | None, bound_ms: float, advice: str) -> Check:
    ok = value_ms is None or value_ms <= bound_ms
    return Check(
        name=name, value=value_ms, bound=f"<= {bound_ms:g}", unit="ms", ok=ok, advice="" if ok else advice
    )
