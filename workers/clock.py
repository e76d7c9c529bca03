"""Model time on a rank: a zero point on CLOCK_MONOTONIC and a dilation.

Wall time is CLOCK_MONOTONIC of the coordinator's machine. On another machine, `offset_ns` is by how much the
machine's own clock is ahead of it.
"""

import time
from collections.abc import Sequence

from controller.units import NS_PER_S
from workers.slowdown import Slowdown, ends_ns


class Clock:
    """Until `start`, model time stands at 0. `late_ms` is how late each timed wait ended, in wall ms.

    `slowdowns` are those of the rank whose clock this is.
    """

    def __init__(self, time_dilation: float, offset_ns: int = 0, slowdowns: Sequence[Slowdown] = ()) -> None:
        self._dilation = time_dilation
        self._offset_ns = offset_ns
        self._slowdowns = slowdowns
        self._zero_wall_ns: int | None = None
        self.late_ms: list[float] = []

    def start(self, zero_wall_ns: int) -> None:
        self._zero_wall_ns = zero_wall_ns

    def wall_ns(self) -> int:
        """CLOCK_MONOTONIC of the coordinator's machine."""
        return time.monotonic_ns() - self._offset_ns

    def now_ns(self) -> int:
        return self.at_ns(self.wall_ns())

    def at_ns(self, wall_ns: int) -> int:
        """The model time at wall time `wall_ns`."""
        if self._zero_wall_ns is None:
            return 0
        return round((wall_ns - self._zero_wall_ns) / self._dilation)

    def span_ns(self, wall_ns: int) -> int:
        """The model duration of a wall-clock duration."""
        return round(wall_ns / self._dilation)

    def compute_s(self, seconds: float) -> float:
        """How many seconds compute takes from now on that takes `seconds` on a rank without slowdowns."""
        if not self._slowdowns:
            return seconds
        now_ns = self.now_ns()
        return (ends_ns(self._slowdowns, now_ns, round(seconds * NS_PER_S)) - now_ns) / NS_PER_S

    def wait_for(self, seconds: float) -> None:
        """Wait for `seconds` of model time."""
        self._wait_until_wall(self.wall_ns() + round(seconds * self._dilation * NS_PER_S))

    def wait_out(self, begun_wall_ns: int, seconds: float) -> None:
        """Wait until `seconds` of model time have passed since `begun_wall_ns`, a wall time of this clock.

        If they have passed already, what was done since then took too long, and counts as a late end.
        """
        end_wall_ns = begun_wall_ns + round(seconds * self._dilation * NS_PER_S)
        late_ns = self.wall_ns() - end_wall_ns
        if late_ns > 0:
            self.late_ms.append(late_ns / 1e6)
        else:
            self._wait_until_wall(end_wall_ns)

    def wait_until(self, model_ns: int) -> None:
        """Wait until model time `model_ns`; return at once if it has passed.

        Raises `RuntimeError` before `start`.
        """
        if self._zero_wall_ns is None:
            raise RuntimeError("the clock has not been started")
        self._wait_until_wall(self._zero_wall_ns + round(model_ns * self._dilation))

    def _wait_until_wall(self, wall_ns: int) -> None:
        left_ns = wall_ns - self.wall_ns()
        if left_ns > 0:
            time.sleep(left_ns / NS_PER_S)
            self.late_ms.append((self.wall_ns() - wall_ns) / 1e6)
