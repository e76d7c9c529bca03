"""A row of a trace in any format, and how a format is read into rows."""

import enum
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

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


Longs = npt.NDArray[np.int64]


class RowColumns(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that follow each other in a trace, in columns: with times, without sessions.

    The blocks of row i are `blocks[starts[i]:starts[i + 1]]`. Without `blocks`, no row has any.
    """

    time_ns: Longs
    prompt_tokens: Longs
    output_tokens: Longs
    blocks: Longs | None = None
    starts: Longs | None = None

    @property
    def count(self) -> int:
        return len(self.time_ns)


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a trace. `rows` reads it row by row. `columns` has the same rows; None if one of them has a
    value that only `rows` can read, or refuse."""

    rows: Callable[[], Iterator[PlacedRow]]
    columns: RowColumns | None = None


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """How a file is read.

    `placed` reads a file row by row, in the file's order, and raises `UserError` for the first invalid line.
    `pieces`, where there is one, reads the same rows, many at a time.
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
    pieces: Callable[[Path], Iterator[Piece]] | None = None

    def rows(self, path: Path) -> Iterator[TraceRow]:
        """Yield the rows of the trace at `path`. Raises as `placed` and `Order.rows` do."""
        return Order(self.time, path).rows(self.placed(path))

    def in_columns(self, path: Path, *, single: range | None = None) -> Iterator[RowColumns | TraceRow]:
        """Yield the rows of the trace at `path`, in columns where that is possible, else one by one.

        The rows whose numbers, from 0, are in `single` come one by one. Raises as `rows` does.
        """
        order, count = Order(self.time, path), 0
        for piece in self._pieces(path):
            found = piece.columns
            if found is not None and not _overlap(single, count, found.count) and order.take(found.time_ns):
                count += found.count
                yield found
                continue
            for row in order.rows(piece.rows()):
                count += 1
                yield row

    def _pieces(self, path: Path) -> Iterator[Piece]:
        if self.pieces is not None:
            return self.pieces(path)
        return iter((Piece(rows=lambda: self.placed(path)),))


def _overlap(single: range | None, begin: int, count: int) -> bool:
    return single is not None and begin < single.stop and single.start < begin + count


class Order:
    """Checks that the rows of a trace are sorted by time.

    Later turns of a session wait for the turn before, so their times need not fit in. `name` is the name of
    the time in the file at `path`.
    """

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path
        self._last: int | None = None
        self._begun: set[str] = set()
        self._first = True

    def rows(self, rows: Iterable[PlacedRow]) -> Iterator[TraceRow]:
        """Yield `rows`, which come with their place and follow those so far.

        Raises `UserError`, with the place, for a row that is earlier than those above it, for one without a
        time if others have one, and for a first turn with a pause.
        """
        for where, row in rows:
            if row.session is None or row.session not in self._begun:
                self._check(row, where)
            yield row

    def take(self, time_ns: Longs) -> bool:
        """Return whether rows with these times may follow those so far. If they may, they do."""
        if not len(time_ns):
            return True
        follows = self._first or (self._last is not None and self._last <= time_ns[0])
        if not follows or (time_ns[1:] < time_ns[:-1]).any():
            return False
        self._last, self._first = int(time_ns[-1]), False
        return True

    def _check(self, row: TraceRow, where: str) -> None:
        if row.session is not None:
            self._begun.add(row.session)
        if row.pause_ns:
            raise UserError(f"{where}: a pause before the first turn of a session, which waits for nothing")
        name, last = self._name, self._last
        if not self._first and (row.time_ns is None) != (last is None):
            raise UserError(
                f"{where}: {name} is missing, or the rows above lack it: all rows have one, or none"
            )
        if last is not None and row.time_ns is not None and row.time_ns < last:
            raise UserError(
                f"{where}: {name} is earlier than in the row above; a trace is sorted by time: "
                f"mfs workload convert {shlex.quote(str(self._path))} --sort --out SORTED writes it sorted"
            )
        self._last, self._first = row.time_ns, False


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
