"""Model time of a simulation: what happens when, in one total order."""

import heapq
from collections.abc import Callable


class Agenda:
    """Acts to come, by model time. Acts of one nanosecond run in the order in which they were planned.

    `late` counts the acts that were planned for a time that had passed, which is a bug of the planner.
    """

    def __init__(self) -> None:
        self._acts: list[tuple[int, int, Callable[[], None]]] = []
        self._planned = 0
        self.now_ns = 0
        self.late = 0

    def at(self, time_ns: int, act: Callable[[], None]) -> None:
        """Plan `act` for `time_ns`, which is now or later."""
        self.late += time_ns < self.now_ns
        heapq.heappush(self._acts, (time_ns, self._planned, act))
        self._planned += 1

    def next_ns(self) -> int | None:
        return self._acts[0][0] if self._acts else None

    def take_due(self) -> Callable[[], None] | None:
        """Remove and return the next act that is due now; None if there is none."""
        if self._acts and self._acts[0][0] <= self.now_ns:
            return heapq.heappop(self._acts)[2]
        return None
