"""Checks of delays: each is judged against what it delays, on the wall.

A late permit or wake-up is as long, in wall time, whatever the scale. What it does to the results depends on
how long the transfer or the compute takes that waits for it. So the value of a check is the ratio of the two.
"""

from collections.abc import Sequence

import msgspec

from testbed.coordinator.cpu_wait import CpuWait
from testbed.record import Check
from testbed.serving.yardsticks import Yardstick

PERMIT_P50_BOUND = 0.1
PERMIT_P99_BOUND = 1.0
LATE_P99_BOUND = 0.5
MOMENT_BOUND = 0.2
CPU_WAIT_BOUND = 0.1

LATENCIES = 20
"""Percentiles of fewer values are not judged: the first permits of a run find every cache cold."""

MORE_TIME = "give the run more time (a higher scale.wall_s, or scale.time_dilation), or free up the machine"


class WallYardstick(msgspec.Struct, frozen=True, kw_only=True):
    """A yardstick at the scale of a run. Without one, nothing is judged."""

    of: Yardstick | None
    time_dilation: float

    def check(self, name: str, delay_ms: float | None, bound: float, *, why: str, advice: str) -> Check:
        """The check that a delay of `delay_ms` wall milliseconds is at most `bound` yardsticks long."""
        if self.of is None or delay_ms is None:
            return Check(name=name, value=None, bound=f"<= {bound:g}", unit="", ok=True, advice="")
        wall_ms = self.of.seconds * self.time_dilation * 1e3
        value = delay_ms / wall_ms
        ok = value <= bound
        return Check(
            name=name,
            value=value,
            bound=f"<= {bound:g}",
            unit=f"of {self.of.short}",
            ok=ok,
            advice="" if ok else advice,
            reason=f"{delay_ms:.3g} ms against {wall_ms:.4g} ms on the wall for {self.of.name}: {why}",
            dilation=None if ok else value / bound,
        )


def permit_checks(permit_ms: Sequence[float], against: WallYardstick) -> list[Check]:
    """The checks of permit latencies, in wall milliseconds: every transfer waits for its permit."""
    return [
        _percentile_check(
            "permit latency p50",
            permit_ms,
            50,
            PERMIT_P50_BOUND,
            against,
            "half of all transfers begin that late, so the shortest kind takes up to a tenth longer",
        ),
        _percentile_check(
            "permit latency p99",
            permit_ms,
            99,
            PERMIT_P99_BOUND,
            against,
            "one short transfer in a hundred takes twice as long, which lengthens their mean by 1 %",
        ),
    ]


def wakeup_check(late_ms: Sequence[float], against: WallYardstick) -> Check:
    """The check of wake-ups: a sleep stands for compute, and a late end makes it longer."""
    return _percentile_check(
        "late wake-ups of timed compute p99",
        late_ms,
        99,
        LATE_P99_BOUND,
        against,
        "a layer waits for its slowest rank, and one compute in a hundred is longer by half",
    )


def cpu_check(wait: CpuWait, against: WallYardstick) -> Check:
    """The check of the waits for a CPU."""
    return against.check(
        "mean wait for the CPU",
        wait.mean_ms,
        CPU_WAIT_BOUND,
        why=f"{wait.process} waited longest for its turns, and both ends of a transfer take turns",
        advice=MORE_TIME,
    )


def percentile(values: Sequence[float], q: float) -> float | None:
    """Percentile `q`, interpolated linearly between the closest values as numpy does by default."""
    if not values:
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * q / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _percentile_check(
    name: str, values_ms: Sequence[float], q: float, bound: float, against: WallYardstick, why: str
) -> Check:
    """Check of a percentile. With too few values it is shown, but not judged."""
    check = against.check(name, percentile(values_ms, q), bound, why=why, advice=MORE_TIME)
    if len(values_ms) >= LATENCIES or check.value is None:
        return check
    bound_text = f"{check.bound}, not judged on {len(values_ms)} values"
    return msgspec.structs.replace(check, ok=True, advice="", dilation=None, bound=bound_text)
