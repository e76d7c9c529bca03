"""What disturbed a run on its way: processes that paused, links that were down, flows that got nothing.

The other fidelity checks are shares and percentiles over the whole run. A few seconds hardly change those,
but they can double the time of the requests that they meet. Each check here names its culprit.
"""

import bisect
import time
from collections.abc import Iterable, Mapping, Sequence

from controller.flow import Stage
from controller.protocol import Away
from controller.pulse import Pause
from controller.units import NS_PER_S
from testbed.columns import ColumnSpool
from testbed.coordinator.delays import WallYardstick
from testbed.coordinator.gathered import PermitRow
from testbed.coordinator.lapses import (
    RUN_AGAIN,
    WallClock,
    latest_wakeup,
    named,
    pauses_check,
    slowest_permit,
)
from testbed.coordinator.outages import Down
from testbed.emulation.asked import RECONNECT_S, SETTLE_S, Asked, Window, longest_outside
from testbed.emulation.samples import SampleLog
from testbed.faults import ControllerRestart, LinkFault, RankPause, SwitchRestart
from testbed.record import Check, FlowRow
from testbed.serving.yardsticks import Yardstick

SILENCE_BOUND_MS = 1000.0
"""Not relative: the samples that it is measured with are 250 ms apart, whatever the scale."""

FAULT_LATE_MS = 250.0


def disturbances(
    *,
    pauses: Mapping[str, Pause],
    outages: Sequence[Down],
    away: Sequence[Away],
    permits: Iterable[PermitRow],
    late_ms: Mapping[int, Sequence[float]],
    flows: Iterable[FlowRow],
    samples: SampleLog,
    clock: WallClock,
    whole: Yardstick | None,
    asked: Sequence[Asked] = (),
    fault_late_ms: float | None = None,
) -> list[Check]:
    """The checks. `pauses` has the longest pause of each process by its name, `outages` the longest of each
    link, the longest first. `away` is when the controller was without a bridge. `whole` is what a single
    moment delays.

    `asked` are the faults that the scenario asked for: what they explain is no disturbance, and `outages` is
    without them. With faults, there is a check more, on `fault_late_ms`: by how much one began or ended late.
    """
    against = WallYardstick(of=whole, time_dilation=clock.time_dilation)
    checks = [
        pauses_check(pauses, clock, against),
        _outages(outages, clock),
        _away(away, clock, asked),
        _silence(flows, samples, clock, asked),
        slowest_permit(permits, against),
        latest_wakeup(late_ms, against),
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


def _away(away: Sequence[Away], clock: WallClock, asked: Sequence[Asked]) -> Check:
    """The longest time for which the controller was without a bridge, though nobody asked for it."""
    found = []
    for one in away:
        end_ns = time.monotonic_ns() if one.end_wall_ns is None else one.end_wall_ns
        begin_ns, wall_ns = longest_outside(one.begin_wall_ns, end_ns, _without(one.bridge, asked))
        if wall_ns > 0:
            found.append((wall_ns, f"{one.bridge} {clock.lasted(begin_ns, wall_ns)}"))
    found.sort(reverse=True)
    advice = f"{named([words for _, words in found])}: levels could not change there. {RUN_AGAIN}"
    longest_ms = found[0][0] / 1e6 if found else 0.0
    return _at_most("longest time a bridge was without the controller", longest_ms, 0.0, advice)


def _without(bridge: str, asked: Sequence[Asked]) -> list[Window]:
    """When a bridge was to be without the controller, with the time that it takes to connect again."""
    return [
        one.window.wider(SETTLE_S, RECONNECT_S + SETTLE_S)
        for one in asked
        if isinstance(one.fault, ControllerRestart)
        or (isinstance(one.fault, SwitchRestart) and one.fault.switch == bridge)
    ]


def _silence(flows: Iterable[FlowRow], samples: SampleLog, clock: WallClock, asked: Sequence[Asked]) -> Check:
    """The longest time in which a permitted flow was not done and no port on its path sent a byte.

    While a link on its path is upset because the scenario asked for it, that is no silence.

    While a flow waits behind others, some port on its path sends those. Shares of collectives wait for the
    other ranks, too, so they do not count. A pause counts from sample to sample.
    """
    times = [step.time_ns for step in samples.steps]
    longest_ns, culprit = 0, ""
    # A port that is upset counts as one that moved.
    moved = [step.moved | bits for step, bits in zip(samples.steps, _upset(samples, asked), strict=True)]
    held = _held(samples, asked)
    for flow in flows:
        if flow.stage is Stage.COLLECTIVE or not flow.path:
            continue
        path = samples.bits(flow.path)
        first = bisect.bisect_left(times, flow.permit_ns)
        last = bisect.bisect_right(times, flow.finish_ns) - 1
        quiet_since = first
        for i in range(first + 1, last + 1):
            if moved[i] & path or not held[i].isdisjoint((flow.src, flow.dst)):
                quiet_since = i
            elif times[i] - times[quiet_since] > longest_ns:
                longest_ns = times[i] - times[quiet_since]
                since_s = times[quiet_since] / NS_PER_S
                culprit = f"flow {flow.id} on {', '.join(flow.path)} from {since_s:.3f} s of model time on"
    advice = f"{culprit}: nothing on its path sent a byte, though it had its permit. {RUN_AGAIN}"
    value = clock.wall_ms(longest_ns) if len(times) > 1 else None
    return _at_most("longest time without delivery while a flow was due", value, SILENCE_BOUND_MS, advice)


def _upset(samples: SampleLog, asked: Sequence[Asked]) -> list[int]:
    """The bits of the ports that were upset at some time between each sample and the one before it."""
    found, steps = [0] * len(samples.steps), samples.steps
    for one in asked:
        for i in range(1, len(steps)):
            begin_ns, end_ns = steps[i - 1].wall_ns, steps[i].wall_ns
            if isinstance(one.fault, LinkFault) and one.upset and one.upset.overlaps(begin_ns, end_ns):
                found[i] |= samples.bits(one.fault.ports)
    return found


def _held(samples: SampleLog, asked: Sequence[Asked]) -> list[set[int]]:
    """The ranks that were paused between each sample and the one before it, or until just before."""
    steps = samples.steps
    found: list[set[int]] = [set() for _ in steps]
    for one in asked:
        for i in range(1, len(steps)):
            window = one.window.wider(0.0, SETTLE_S)
            if isinstance(one.fault, RankPause) and window.overlaps(steps[i - 1].wall_ns, steps[i].wall_ns):
                found[i].add(one.fault.rank)
    return found


def pauses_of(rank: int, asked: Sequence[Asked]) -> list[Window]:
    """When a rank was paused because the scenario asked for it, with some slack."""
    return [
        one.window.wider(SETTLE_S, SETTLE_S)
        for one in asked
        if isinstance(one.fault, RankPause) and one.fault.rank == rank
    ]


def restarts(asked: Sequence[Asked]) -> list[Window]:
    """When the controller was away because the scenario asked for it, with some slack, and the time in which
    bridges connect again."""
    return [
        one.window.wider(SETTLE_S, RECONNECT_S + SETTLE_S)
        for one in asked
        if isinstance(one.fault, ControllerRestart)
    ]


def unasked_pause(pauses: Iterable[Pause], windows: Sequence[Window]) -> Pause:
    """The longest of `pauses`, or part of one, that is in none of `windows`: nobody asked for it."""
    parts = [
        longest_outside(pause.begin_wall_ns, pause.begin_wall_ns + pause.wall_ns, windows) for pause in pauses
    ]
    begin_ns, wall_ns = max(parts, key=lambda part: part[1])
    return Pause(begin_wall_ns=begin_ns, wall_ns=wall_ns)


def undisturbed(
    permits: ColumnSpool[PermitRow], asked: Sequence[Asked], clock: WallClock
) -> ColumnSpool[PermitRow]:
    """`permits` without those that were waited for while their ranks were paused or the controller was away,
    as asked for."""
    ranks = {one.fault.rank for one in asked if isinstance(one.fault, RankPause)}
    away = restarts(asked)
    if not ranks and not away:
        return permits
    windows = {rank: [*pauses_of(rank, asked), *away] for rank in ranks}

    def waited(permit: PermitRow) -> tuple[int, int]:
        begin_ns = clock.zero_wall_ns + round(permit.submit_ns * clock.time_dilation)
        lane_ns = round(permit.lane_wait_ns * clock.time_dilation)
        return begin_ns, begin_ns + lane_ns + permit.latency_wall_ns

    kept = (
        permit
        for permit in permits
        if not any(window.overlaps(*waited(permit)) for window in windows.get(permit.rank, away))
    )
    return ColumnSpool(PermitRow, kept)


def _at_most(name: str, value_ms: float | None, bound_ms: float, advice: str) -> Check:
    ok = value_ms is None or value_ms <= bound_ms
    return Check(
        name=name, value=value_ms, bound=f"<= {bound_ms:g}", unit="ms", ok=ok, advice="" if ok else advice
    )
