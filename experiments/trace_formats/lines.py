"""Files to decoded rows: JSON, and lines of cells under a header. What a row means is not known here."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.json_text import NamedTwice, named_once
from experiments.trace_formats.rows import PlacedRow, TraceRow
from experiments.trace_formats.text_file import lines_of
from experiments.trace_formats.values import columns_of, json_object

RowsOf = Callable[[dict[str, Any], str], Iterable[TraceRow]]
"""Makes the rows of the trace from one decoded row, given its place in the file. Most make exactly one."""

_ENOUGH = 1 << 20
_LARGEST_ITEM = 16 << 20


def json_rows(path: Path, rows_of: RowsOf, *, skip_lines: int = 0) -> Iterator[PlacedRow]:
    """Yield the rows of a file with a JSON object per line, after the first `skip_lines` lines."""
    lines = lines_of(path)
    return rows_of_json(path, itertools.islice(lines, skip_lines, None), skip_lines + 1, rows_of)


def rows_of_json(path: Path, lines: Iterable[str], first: int, rows_of: RowsOf) -> Iterator[PlacedRow]:
    """Yield the rows of `lines`, of which the first has the number `first` in the file."""
    for number, line in enumerate(lines, first):
        if line.strip():
            where = f"{path}, line {number}"
            for row in rows_of(json_object(line, where), where):
                yield where, row


def json_array_rows(path: Path, rows_of: RowsOf) -> Iterator[PlacedRow]:
    """Yield the rows of a file that is one JSON array of objects. One object at a time is in memory."""
    for number, item in enumerate(_items(path), start=1):
        where = f"{path}, item {number}"
        if not isinstance(item, dict):
            raise UserError(f"{where}: not a JSON object")
        for row in rows_of(item, where):
            yield where, row


def _items(path: Path) -> Iterator[Any]:
    pieces = _pieces(path)
    text = next(pieces).lstrip().removeprefix("[")
    decode = json.JSONDecoder(object_pairs_hook=named_once).raw_decode
    count = 0
    while True:
        text = text.lstrip().removeprefix(",").lstrip()
        try:
            item, end = decode(text)
        except RecursionError:
            raise UserError(f"{path}: after item {count}: nested too deeply") from None
        except NamedTwice as error:
            raise UserError(f"{path}, item {count + 1}: {error}") from None
        except ValueError:
            # Each try decodes the item from its beginning.
            more = next(pieces, None) if len(text) < _LARGEST_ITEM else None
            if more is not None:
                text += more
                continue
            if text.strip() == "]":
                return
            size = f", or larger than {_LARGEST_ITEM:,} characters" if len(text) >= _LARGEST_ITEM else ""
            raise UserError(
                f"{path}: after item {count}: not JSON{size}, or the array does not end"
            ) from None
        count += 1
        yield item
        text = text[end:]


def _pieces(path: Path) -> Iterator[str]:
    """Yield the text of a file in pieces of about a megabyte."""
    piece: list[str] = []
    size = 0
    for line in lines_of(path):
        piece += (line, "\n")
        size += len(line)
        if size >= _ENOUGH:
            yield "".join(piece)
            piece, size = [], 0
    yield "".join(piece)


def cell_rows(path: Path, header: tuple[str, ...], rows_of: RowsOf) -> Iterator[PlacedRow]:
    """Yield the rows of a file of cells whose first line names the columns `header`, and perhaps others."""
    lines = lines_of(path)
    columns = header_columns(path, next(lines), header)
    return rows_of_cells(path, lines, 2, columns, rows_of)


def header_columns(path: Path, line: str, header: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that the first line names. Raises `UserError` unless all of `header` are there,
    and if two columns have the same name."""
    columns = columns_of(line)
    if not set(header) <= set(columns):
        raise UserError(f"{path}, line 1: the header must have {','.join(header)}")
    plain = [name.strip() for name in columns]
    for name in filter(None, plain):
        if plain.count(name) > 1:
            raise UserError(f"{path}, line 1: the column {name!r} is there twice")
    return columns


def rows_of_cells(
    path: Path, lines: Iterable[str], first: int, columns: tuple[str, ...], rows_of: RowsOf
) -> Iterator[PlacedRow]:
    """Yield the rows of `lines`, of which the first has the number `first` in the file."""
    for number, line in enumerate(lines, first):
        if line.strip():
            where = f"{path}, line {number}"
            cells = columns_of(line)
            if len(cells) != len(columns):
                raise UserError(f"{where}: {len(cells)} values, expected {len(columns)}")
            for row in rows_of(dict(zip(columns, cells, strict=True)), where):
                yield where, row
