"""A row of a trace in any format, and how a format is read into rows."""

import enum
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from experiments.errors import UserError

BLOCK_TOKENS = 512
"""The size of a block where a format says nothing of blocks."""


class Guess(enum.Enum):
    """A value that the file lacks, and what a row has in its place. The text is what a note says."""

    PROMPT = "prompt lengths are estimated from the text: one token for each four bytes of UTF-8"
    OUTPUT = "the length of the answer is not in the file: taken as one token"


class TraceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a trace. `time_ns` counts from a moment that differs between traces; None if the row has
    no time of its own.

    `blocks` are the ids of the prompt's full blocks, each standing for the block and everything before it;
    None if the trace does not say what the prompt is made of. `labels` are the columns that tell kinds of
    requests apart.

    Rows of one `session` are the turns of a conversation. A later turn arrives `pause_ns` after the answer
    to the turn before, and not before `time_ns` if it has one.
    """

    time_ns: int | None
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] | None
    labels: dict[str, str] = {}
    session: str | None = None
    pause_ns: int = 0
    guesses: tuple[Guess, ...] = ()


PlacedRow = tuple[str, TraceRow]
"""A row with its place in the file, for messages."""


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """How a file is read.

    `placed` reads a file row by row, in the file's order, and raises `UserError` for the first invalid line.
    `time` is the name of the time in the file. `keys` are the columns or keys that the reader knows; others
    are not read. `labels` are the columns that rows have as labels. `block_tokens` is the size of a block.
    `note` is what users of such a trace have to know, and `turn_note` what else they have to if it has
    sessions.
    """

    placed: Callable[[Path], Iterator[PlacedRow]]
    time: str
    keys: tuple[str, ...]
    block_tokens: int
    labels: tuple[str, ...] = ()
    note: str | None = None
    turn_note: str | None = None

    def rows(self, path: Path) -> Iterator[TraceRow]:
        """Yield the rows of the trace at `path`. Raises as `placed` and `in_order` do."""
        return in_order(self.placed(path), self.time, path)


def in_order(rows: Iterable[PlacedRow], name: str, path: Path) -> Iterator[TraceRow]:
    """Yield the rows of `rows`, which come with their place, and check that they are sorted by time.

    Later turns of a session wait for the turn before, so their times need not fit in. Raises `UserError`,
    with the place, for another row that is earlier than those above it, for one without a time if others
    have one, and for a first turn with a pause. `name` is the name of the time in the file.
    """
    last: int | None = None
    begun: set[str] = set()
    first = True
    for where, row in rows:
        if row.session is not None:
            if row.session in begun:
                yield row
                continue
            begun.add(row.session)
        if row.pause_ns:
            raise UserError(f"{where}: a pause before the first turn of a session, which waits for nothing")
        if not first and (row.time_ns is None) != (last is None):
            raise UserError(
                f"{where}: {name} is missing, or the rows above lack it: all rows have one, or none"
            )
        if last is not None and row.time_ns is not None and row.time_ns < last:
            raise UserError(
                f"{where}: {name} is earlier than in the row above; a trace is sorted by time: "
                f"mfs workload convert {shlex.quote(str(path))} --sort --out SORTED writes it sorted"
            )
        last, first = row.time_ns, False
        yield row


def by_time(rows: Iterable[PlacedRow]) -> Iterator[PlacedRow]:
    """Yield `rows` sorted by time; the turns of a session stay in order, right behind its first turn.

    Rows of one time stay in the order of the file. All rows are kept in memory. Rows without a time come
    first, so a trace that has no times stays as it is.
    """
    started: dict[str, int] = {}
    keyed: list[tuple[int, int, PlacedRow]] = []
    groups: list[int] = []
    for number, placed in enumerate(rows):
        row = placed[1]
        group = number if row.session is None else started.setdefault(row.session, number)
        groups.append(-1 if row.time_ns is None else row.time_ns)
        keyed.append((group, number, placed))
    keyed.sort(key=lambda one: (groups[one[0]], one[0], one[1]))
    for _, _, placed in keyed:
        yield placed
