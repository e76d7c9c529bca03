"""What a rank records of a run. Lists only grow; any thread may append to them."""

from dataclasses import dataclass, field

from controller.pulse import Pause
from workers.protocol import ProgressMark, ReceivedFlow, Records, SentFlow, Span, TokenCheck


@dataclass(slots=True)
class Recorder:
    sent: list[SentFlow] = field(default_factory=list)
    received: list[ReceivedFlow] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    progress: list[ProgressMark] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """How many rows there are."""
        return len(self.sent) + len(self.received) + len(self.spans) + len(self.progress)

    def records(
        self,
        rank: int,
        late_wakeups_ms: list[float],
        pauses: tuple[Pause, ...],
        tokens: tuple[TokenCheck, ...] = (),
    ) -> Records:
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
