"""Files of cells, and of flat JSON objects, by column, for traces of many millions of rows.

A file is read a few megabytes at a time. If all values of such a piece are *plain*, it is read in columns.
Plain are lengths of a few digits, and times as programs write them. Any other piece is left to the reader of
single rows, which knows all that a value may be, and names the line of one that is wrong. So a value that is
read here is the one that would be read there, and nothing that is refused there is read here.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from experiments.errors import UserError
from experiments.trace_formats.lines import RowsOf, cell_rows, header_columns, rows_of_cells
from experiments.trace_formats.rows import Longs, Piece, PlacedRow, RowColumns
from experiments.trace_formats.text_file import (
    MOST_LINE_CHARACTERS,
    lines_of,
    not_text,
    open_trace,
    tell_reading,
)
from experiments.trace_formats.values import MAX_TOKENS

PIECE_BYTES: Final = 8 << 20

_PLAIN_COUNT: Final = r"^[0-9]{1,8}$"
_PLAIN_NS: Final = r"^[0-9]{1,18}$"
_PLAIN_SECONDS: Final = r"^[0-9]{1,9}(\.[0-9]{1,20})?$"
_BELOW_NS: Final = r"(\.[0-9]{9})[0-9]+$"
_PLAIN_UTC: Final = r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
_ZONES: Final = {r"\+00:00$": "UTC", "Z$": "UTC", "$": None}
"""How a time may end, and the zone that Arrow is told for it."""


class NotPlain(Exception):
    """A value that only the reader of single rows can read, or refuse."""


class Cells(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a format: those that its header must have, and those that a row is made of.

    `time_ns` reads the column of times. With `failed_without_output`, a row without output is left out. Rows
    are read only with the values in `only`, for those of its columns that the file has.
    """

    header: tuple[str, ...]
    rows_of: RowsOf
    time: str
    time_ns: Callable[[Any], Longs]
    prompt: str
    output: str
    failed_without_output: bool = False
    only: Mapping[str, str] = {}


def pieces_of(path: Path, cells: Cells) -> Iterator[Piece]:
    """Yield the pieces of the file at `path`. Raises `UserError` for an invalid header, and for a file that
    is not text."""
    columns = header_columns(path, next(lines_of(path)), cells.header)
    with open_trace(path) as file:
        head = file.readline(MOST_LINE_CHARACTERS)
        if b"\r" in head.removesuffix(b"\n").removesuffix(b"\r"):  # here, lines end without \n
            yield Piece(rows=partial(cell_rows, path, cells.header, cells.rows_of))
            return
        known = cells.time in columns and len(set(columns)) == len(columns)
        for number, text in whole_lines(path, file, number=2, done=len(head)):
            found = read_plain(partial(_read, text, columns, cells)) if known else None
            yield Piece(rows=partial(_rows, path, text, number, columns, cells), columns=found)


def whole_lines(path: Path, file: BinaryIO, *, number: int, done: int) -> Iterator[tuple[int, bytes]]:
    """Yield the rest of `file` in pieces of whole lines, each with the number of its first line.

    `number` is that of the next line, and `done` bytes of the file at `path` have been read.
    """
    rest = b""
    while chunk := file.read(PIECE_BYTES):
        whole, cut, begun = (rest + chunk).rpartition(b"\n")
        rest = begun
        if len(rest) > MOST_LINE_CHARACTERS:
            raise UserError(f"{path}: a line is longer than {MOST_LINE_CHARACTERS:,} characters")
        if cut:
            yield number, whole + cut
            number += whole.count(b"\n") + 1
        done += len(chunk)
        tell_reading(path, done)
    if rest:
        yield number, rest


def read_plain(read: Callable[[], RowColumns]) -> RowColumns | None:
    """Return what `read` returns, or None if it finds a value that is not plain."""
    try:
        return read()
    except (NotPlain, pa.ArrowInvalid):
        return None


def _rows(
    path: Path, text: bytes, number: int, columns: tuple[str, ...], cells: Cells
) -> Iterator[PlacedRow]:
    lines = io.TextIOWrapper(io.BytesIO(text), encoding="utf-8")
    try:
        yield from rows_of_cells(path, lines, number, columns, cells.rows_of)
    except UnicodeDecodeError:
        raise not_text(path) from None


def _read(text: bytes, columns: tuple[str, ...], cells: Cells) -> RowColumns:
    delimiter = b"\t" if b"\t" in text else b","
    # A line with a tab is cut at tabs, another one at commas. Other ends of lines would be counted wrongly.
    if not text.isascii() or other_ends(text) or (delimiter == b"\t" and b"," in text):
        raise NotPlain
    only = [name for name in cells.only if name in columns]
    wanted = [cells.time, cells.prompt, cells.output, *only]
    table = pyarrow.csv.read_csv(
        pa.BufferReader(text),
        read_options=pyarrow.csv.ReadOptions(
            column_names=columns, use_threads=False, block_size=len(text) + 1
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter.decode(), quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=wanted,
            column_types={name: pa.string() for name in wanted},
            strings_can_be_null=False,
        ),
    ).combine_chunks()
    if not table.num_rows:
        raise NotPlain
    time, prompt, output, *others = (table.column(name).chunk(0) for name in wanted)
    if any(
        not pc.all(pc.equal(each, cells.only[name])).as_py() for name, each in zip(only, others, strict=True)
    ):
        raise NotPlain
    found = RowColumns(
        time_ns=cells.time_ns(time),
        prompt_tokens=_counts(prompt),
        output_tokens=_counts(output),
    )
    if cells.failed_without_output:
        done = found.output_tokens > 0
        found = RowColumns(
            time_ns=found.time_ns[done],
            prompt_tokens=found.prompt_tokens[done],
            output_tokens=found.output_tokens[done],
        )
    if found.count and found.prompt_tokens.min() < 1:
        raise NotPlain
    return found


def _counts(texts: Any) -> Longs:
    _check(texts, _PLAIN_COUNT)
    counts: Longs = texts.cast(pa.int64()).to_numpy()
    if counts.max() > MAX_TOKENS:
        raise NotPlain
    return counts


def other_ends(text: bytes) -> bool:
    """Return whether lines end in another way than those that are counted."""
    return b"\r" in text and b"\r" in text.replace(b"\r\n", b"\n")


def plain_ns(texts: Any) -> Longs:
    """Return times that are whole numbers of ns."""
    _check(texts, _PLAIN_NS)
    found: Longs = texts.cast(pa.int64()).to_numpy()
    return found


def plain_seconds(texts: Any) -> Longs:
    """Return times in seconds in ns, rounded down."""
    _check(texts, _PLAIN_SECONDS)
    if pc.any(pc.match_substring_regex(texts, _BELOW_NS)).as_py():
        texts = pc.replace_substring_regex(texts, _BELOW_NS, r"\1")
    decimals = texts.cast(pa.decimal128(18, 9))
    # The value of a decimal is a 128-bit whole number of ns, the lower half first.
    halves = np.frombuffer(decimals.buffers()[1], dtype=np.int64)[2 * decimals.offset :]
    return halves[: 2 * len(decimals) : 2].copy()


def plain_utc(texts: Any) -> Longs:
    """Return times like 2024-05-10 00:00:00.009930+00:00 in ns since 1970. All have one zone, or none."""
    for end, zone in _ZONES.items():
        if _all(texts, _PLAIN_UTC + end):
            found: Longs = texts.cast(pa.timestamp("ns", zone)).cast(pa.int64()).to_numpy()
            return found
    raise NotPlain


def _check(texts: Any, pattern: str) -> None:
    if not _all(texts, pattern):
        raise NotPlain


def _all(texts: Any, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, pattern)).as_py())
