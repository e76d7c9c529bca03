"""What the rows that are taken from a trace have in common, in notes: what they lack, and what waits."""

from collections import Counter

from experiments.trace_formats.rows import Guess, Reader, TraceRow

NO_REUSE = "the trace does not say which prompts share a prefix: nothing is reused"


class Tally:
    """Counts rows by what has to be said of them. `see` each row that is taken, in order.

    `turns` is the number of later turns of sessions.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._without_blocks = 0
        self._guesses: Counter[Guess] = Counter()
        self._prompts: dict[str, int] = {}
        self.turns = 0
        self._shorter = 0

    def see(self, row: TraceRow) -> None:
        self._rows += 1
        self._without_blocks += row.blocks is None
        self._guesses.update(row.guesses)
        if row.session is None:
            return
        before = self._prompts.get(row.session)
        if before is not None:
            self.turns += 1
            self._shorter += row.prompt_tokens < before
        self._prompts[row.session] = row.prompt_tokens

    def see_columns(self, rows: int, *, blocks: bool) -> None:
        """Count so many rows that came in columns, with or without blocks."""
        self._rows += rows
        self._without_blocks += 0 if blocks else rows

    def notes(self, reader: Reader) -> list[str]:
        """Return the notes on the rows seen, with the reader's own."""
        notes = []
        if self._without_blocks == self._rows:
            notes.append(NO_REUSE)
        elif self._without_blocks:
            notes.append(f"{self._of(self._without_blocks)} have no ids of blocks: they reuse nothing")
        if reader.note:
            notes.append(reader.note)
        notes += [f"{guess.value} ({self._of(count)})" for guess, count in self._guesses.items()]
        if self.turns:
            notes.append(
                f"{self._of(self.turns)} are later turns of a session: each waits for the answer to the turn "
                "before, and then pauses"
            )
        if self.turns and reader.turn_note:
            notes.append(reader.turn_note)
        if self._shorter:
            notes.append(f"{self._shorter} of these turns have a shorter prompt than the turn before")
        return notes

    def _of(self, count: int) -> str:
        return f"{count} of {self._rows} requests"
