"""What a rank records of a run. Any thread may append to the lists."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from controller.pulse import Pause
from workers.protocol import ProgressMark, ReceivedFlow, Records, Rows, SentFlow, Span, TokenCheck

T = TypeVar("T")


@dataclass(slots=True)
class Recorder:
    sent: list[SentFlow] = field(default_factory=list)
    received: list[ReceivedFlow] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    progress: list[ProgressMark] = field(default_factory=list)
    _away: int = 0
    _closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def steps(self) -> int:
        """How many rows there were so far."""
        return self._away + self._here

    @property
    def _here(self) -> int:
        return len(self.sent) + len(self.received) + len(self.spans) + len(self.progress)

    def hand_over(self, rank: int, late_wakeups_ms: list[float], send: Callable[[Rows], None]) -> None:
        """Send what was recorded since the last call, and forget it. Nothing is sent after `records`."""
        with self._lock:  # also while it is sent: `Records` must not overtake it
            if self._closed or not self._here:
                return
            rows = Rows(
                rank=rank,
                sent=_taken(self.sent),
                received=_taken(self.received),
                spans=_taken(self.spans),
                progress=_taken(self.progress),
                late_wakeups_ms=_taken(late_wakeups_ms),
            )
            self._away += len(rows.sent) + len(rows.received) + len(rows.spans) + len(rows.progress)
            send(rows)

    def records(
        self,
        rank: int,
        late_wakeups_ms: list[float],
        pauses: tuple[Pause, ...],
        tokens: tuple[TokenCheck, ...] = (),
    ) -> Records:
        with self._lock:
            self._closed = True
        return Records(
            rank=rank,
            sent=tuple(self.sent),
            received=tuple(self.received),
            spans=tuple(self.spans),
            progress=tuple(self.progress),
            late_wakeups_ms=tuple(late_wakeups_ms),
            longest_pause=pauses[0],
            pauses=pauses[1:],
            tokens=tokens,
        )


def _taken(rows: list[T]) -> tuple[T, ...]:
    """Remove the rows that are there now, and return them. Other threads may append meanwhile."""
    count = len(rows)
    taken = tuple(rows[:count])
    del rows[:count]
    return taken
