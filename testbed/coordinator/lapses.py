"""Moments in which something did not run: each check names its culprit. Pure."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from controller.pulse import Pause
from controller.units import NS_PER_S
from testbed.coordinator.delays import MOMENT_BOUND, WallYardstick
from testbed.coordinator.gathered import PermitRow
from testbed.record import Check

_WHY = "one such moment may lengthen what it meets by a fifth"

RUN_AGAIN = "Run it again with nothing else on the machine."
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


def pauses_check(pauses: Mapping[str, Pause], clock: WallClock, against: WallYardstick) -> Check:
    ranked = sorted(pauses.items(), key=lambda named: -named[1].wall_ns)

    def check(wall_ns: int | None, advice: str) -> Check:
        delay_ms = None if wall_ns is None else wall_ns / 1e6
        return against.check("longest pause of a process", delay_ms, MOMENT_BOUND, why=_WHY, advice=advice)

    over = [
        f"{who} did not run {clock.lasted(pause.begin_wall_ns, pause.wall_ns)}"
        for who, pause in ranked
        if not check(pause.wall_ns, "").ok
    ]
    advice = f"{named(over)}: stopped, or without CPU time. {RUN_AGAIN}"
    return check(ranked[0][1].wall_ns if ranked else None, advice)


def slowest_permit(permits: Iterable[PermitRow], against: WallYardstick) -> Check:
    name = "permit latency max"
    slowest = max(permits, key=lambda permit: permit.latency_wall_ns, default=None)
    if slowest is None:
        return against.check(name, None, MOMENT_BOUND, why=_WHY, advice="")
    at_s = slowest.submit_ns / NS_PER_S
    advice = (
        f"flow {slowest.flow} of rank {slowest.rank} waited, submitted at {at_s:.3f} s of model time."
        f" {RUN_AGAIN}"
    )
    return against.check(name, slowest.latency_wall_ns / 1e6, MOMENT_BOUND, why=_WHY, advice=advice)


def latest_wakeup(late_ms: Mapping[int, Sequence[float]], against: WallYardstick) -> Check:
    """`late_ms` has the delays of each rank."""
    late = {rank: max(delays, default=0.0) for rank, delays in late_ms.items()}
    rank = max(late, key=late.__getitem__, default=None)
    value = None if rank is None else late[rank]
    advice = f"rank {rank} woke up late. {RUN_AGAIN}"
    return against.check("late wake-ups of timed compute max", value, MOMENT_BOUND, why=_WHY, advice=advice)


def named(culprits: Sequence[str]) -> str:
    more = len(culprits) - _MOST_NAMED
    return "; ".join(culprits[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
