"""Files of JSON lines by column: see `pieces`.

A piece is read in columns if each of its lines is one flat object, `{"key": number or text, ...}`, and a row
is made of whole numbers only, and of one list of ids of blocks if all rows have one. Other lists and nested
objects are left to the reader of single rows.
"""

import io
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.json

from experiments.trace_formats.lines import RowsOf, rows_of_json
from experiments.trace_formats.pieces import NotPlain, other_ends, read_plain, whole_lines
from experiments.trace_formats.rows import Longs, Piece, PlacedRow, RowColumns
from experiments.trace_formats.text_file import MOST_LINE_CHARACTERS, lines_of, not_text, open_trace
from experiments.trace_formats.values import MAX_S, MAX_TOKENS

_ANOTHER: Final = (b"\\", b"NaN", b"Inf")
"""What a plain line has not: keys that are written in another way, and what is not strictly JSON."""

_ALIKE: Final = b"0123456789, "
"""What lines of one kind differ in: their numbers, and how many of them there are."""

_KEY: Final = re.compile(rb'"([^"]*)":')

_MOST_NS: Final = MAX_S * 10**9


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that a row is made of. `unit_ns` is the unit of the times.

    `ids` is the key of the ids of blocks, of `block_tokens` tokens. With `partial_ids`, a last block that is
    not full has an id, too, which is left out.

    A piece with a key of `single` is read row by row, and so is one with any other key than these, unless
    `others`: then other keys make no difference to a row.
    """

    time: str
    prompt: str
    output: str
    unit_ns: int = 1
    ids: str | None = None
    block_tokens: int = 1
    partial_ids: bool = False
    single: tuple[str, ...] = ()
    others: bool = False


def json_pieces(path: Path, keys: Keys, rows_of: RowsOf, *, skip_lines: int = 0) -> Iterator[Piece]:
    """Yield the pieces of the file at `path`, after the first `skip_lines` lines.

    `rows_of` reads a single row. Raises `UserError` for a file that is not text.
    """
    next(line for line in lines_of(path) if line.strip())
    with open_trace(path) as file:
        heads = [file.readline(MOST_LINE_CHARACTERS) for _ in range(skip_lines)]
        if any(b"\r" in head.removesuffix(b"\n").removesuffix(b"\r") for head in heads):
            lines = list(lines_of(path))[skip_lines:]  # lines end without \n
            yield Piece(rows=partial(rows_of_json, path, lines, skip_lines + 1, rows_of))
            return
        for number, text in whole_lines(path, file, number=skip_lines + 1, done=sum(map(len, heads))):
            found = read_plain(partial(_read, text, keys))
            yield Piece(rows=partial(_rows, path, text, number, rows_of), columns=found)


def _rows(path: Path, text: bytes, number: int, rows_of: RowsOf) -> Iterator[PlacedRow]:
    lines = io.TextIOWrapper(io.BytesIO(text), encoding="utf-8-sig" if number == 1 else "utf-8")
    try:
        yield from rows_of_json(path, lines, number, rows_of)
    except UnicodeDecodeError:
        raise not_text(path) from None


def _read(text: bytes, keys: Keys) -> RowColumns:
    if not text.isascii() or other_ends(text):
        raise NotPlain
    lists = _check_lines(text, keys)
    wanted = (keys.time, keys.prompt, keys.output)
    schema = [(key, pa.int64()) for key in wanted]
    table = pyarrow.json.read_json(
        pa.BufferReader(text),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=pa.schema([*schema, (keys.ids, pa.list_(pa.int64()))] if lists else schema),
            unexpected_field_behavior="ignore" if keys.others else "error",
        ),
    ).combine_chunks()
    columns = [table.column(key) for key in wanted]
    if any(column.null_count for column in columns):
        raise NotPlain
    time, prompt, output = (column.to_numpy() for column in columns)
    _check(time, 0, _MOST_NS // keys.unit_ns)
    _check(prompt, 1, MAX_TOKENS)
    _check(output, 0, MAX_TOKENS)
    blocks, starts = _blocks(table.column(keys.ids), prompt, keys) if lists else (None, None)
    return RowColumns(
        time_ns=time * keys.unit_ns, prompt_tokens=prompt, output_tokens=output, blocks=blocks, starts=starts
    )


def _blocks(column: Any, prompt: Longs, keys: Keys) -> tuple[Longs, Longs]:
    """Return the ids of all full blocks, and where those of each row start."""
    lists = column.chunk(0)
    ids = lists.flatten()
    if lists.null_count or ids.null_count:
        raise NotPlain
    blocks: Longs = ids.to_numpy()
    counts = lists.value_lengths().to_numpy()
    full = prompt // keys.block_tokens
    expected = -(-prompt // keys.block_tokens) if keys.partial_ids else full
    if (counts != expected).any() or (len(blocks) and blocks.min() < 0):
        raise NotPlain
    if keys.partial_ids:
        whole = np.ones(len(blocks), dtype=np.bool_)
        whole[np.cumsum(counts)[counts > full] - 1] = False
        blocks = blocks[whole]
    return blocks, np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(full)))


def _check_lines(text: bytes, keys: Keys) -> bool:
    """Return whether every line has a list of ids, rather than none.

    Raises `NotPlain` unless each line is one flat object, from its first character to its last, with no key
    twice, all keys that a row is made of, and none of `keys.single`. Lines are compared without digits,
    commas and spaces: then they are all alike, or of a few kinds, and each kind is looked at once.
    """
    kinds = {
        line.removesuffix(b"\r") for line in text.translate(None, _ALIKE).removesuffix(b"\n").split(b"\n")
    }
    never = (*_ANOTHER, *(f'"{key}"'.encode() for key in keys.single))
    wanted = {key.encode() for key in (keys.time, keys.prompt, keys.output)}
    for kind in kinds:
        if not (kind.startswith(b"{") and kind.endswith(b"}") and kind.count(b"{") == kind.count(b"}") == 1):
            raise NotPlain
        if any(one in kind for one in never):
            raise NotPlain
        found = _KEY.findall(kind)
        if len(set(found)) < len(found) or not wanted <= set(found):  # keys may differ in their digits only
            raise NotPlain
    lists = {kind.count(b"[") for kind in kinds}
    if lists == {0}:
        return False
    if lists != {1} or keys.ids is None or any(f'"{keys.ids}":['.encode() not in kind for kind in kinds):
        raise NotPlain
    return True


def _check(values: Longs, low: int, high: int) -> None:
    if values.min() < low or values.max() > high:
        raise NotPlain
