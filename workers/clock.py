"""Model time on a rank: a point of CLOCK_MONOTONIC and a dilation."""

import time


class Clock:
    """Before `start`, model time stands at 0. `late_ms` collects how late each timed wait ended."""

    def __init__(self, time_dilation: float) -> None:
        self._dilation = time_dilation
        self._zero_wall_ns: int | None = None
        self.late_ms: list[float] = []

    def start(self, zero_wall_ns: int) -> None:
        self._zero_wall_ns = zero_wall_ns

    def now_ns(self) -> int:
        return self.at_ns(time.monotonic_ns())

    def at_ns(self, wall_ns: int) -> int:
        """Model time of a point of wall time."""
        if self._zero_wall_ns is None:
            return 0
        return round((wall_ns - self._zero_wall_ns) / self._dilation)

    def span_ns(self, wall_ns: int) -> int:
        """Model length of a wall-clock interval."""
        return round(wall_ns / self._dilation)

    def wait_for(self, seconds: float) -> None:
        """Let `seconds` of model time pass."""
        self._wait_until_wall(time.monotonic_ns() + round(seconds * self._dilation * 1e9))

    def wait_until(self, model_ns: int) -> None:
        """Return at `model_ns`; at once if that is over."""
        if self._zero_wall_ns is None:
            raise RuntimeError("the clock has not been started")
        self._wait_until_wall(self._zero_wall_ns + round(model_ns * self._dilation))

    def _wait_until_wall(self, wall_ns: int) -> None:
        left_ns = wall_ns - time.monotonic_ns()
        if left_ns > 0:
            time.sleep(left_ns / 1e9)
            self.late_ms.append((time.monotonic_ns() - wall_ns) / 1e6)
