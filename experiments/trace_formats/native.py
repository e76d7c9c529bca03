"""The testbed's own trace format, which has all that the testbed reads of any: JSON lines under a header.

The header is the first line:

    {"format": "mfs-requests", "version": 1, "block_tokens": 512, "labels": ["type"]}

Each further line is a request, in order of arrival. `arrival_ns` to `output_tokens` are needed:

    {"arrival_ns": 0, "prompt_tokens": 1000, "output_tokens": 20, "blocks": [7], "labels": {"type": "text"},
     "session": "a", "pause_ns": 0, "guessed": ["prompt"]}

`arrival_ns` is null if the trace has no times, and for a later turn of a session that has none of its own.
`blocks` are the ids of the full blocks of the prompt. An id stands for a block and all before it. Without
`blocks`, nothing is known of the prompt. `guessed` names lengths that the file it comes from did not have.
docs/concepts/workloads.md describes all of this.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from experiments.atomic_file import replacing
from experiments.errors import UserError
from experiments.trace_formats.json_pieces import Keys, json_pieces
from experiments.trace_formats.lines import json_rows
from experiments.trace_formats.rows import Guess, Reader, RowColumns, TraceRow
from experiments.trace_formats.text_file import lines_of
from experiments.trace_formats.values import (
    json_block_ids,
    json_count,
    json_object,
    json_time_ns,
    json_value,
)

FORMAT = "mfs-requests"
VERSION = 1
_KEYS = (
    "arrival_ns",
    "prompt_tokens",
    "output_tokens",
    "blocks",
    "labels",
    "session",
    "pause_ns",
    "guessed",
)
_GUESSES = {"prompt": Guess.PROMPT, "output": Guess.OUTPUT}
_NAMES = {guess: name for name, guess in _GUESSES.items()}


def reader_of(path: Path) -> Reader:
    """Return the reader of the file at `path`, by its header. Raises `UserError` for an invalid one."""
    where = f"{path}, line 1"
    header = json_object(next(lines_of(path)), where)
    if header.get("format") != FORMAT:
        raise UserError(f'{where}: the header must have "format": "{FORMAT}"')
    if header.get("version") != VERSION:
        raise UserError(f"{where}: version {header.get('version')!r}; only {VERSION} is known")
    labels = header.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise UserError(f"{where}: labels is not a list of names")
    rows = _Rows(tuple(labels), json_count(header, "block_tokens", where, low=1))
    plain = Keys(
        time="arrival_ns",
        prompt="prompt_tokens",
        output="output_tokens",
        ids="blocks",
        block_tokens=rows.block_tokens,
    )
    return Reader(
        placed=lambda path: json_rows(path, rows.rows, skip_lines=1),
        pieces=lambda path: json_pieces(path, plain, rows.rows, skip_lines=1),
        time="arrival_ns",
        keys=("format", "version", "block_tokens", "labels", "note", "turn_note"),
        block_tokens=rows.block_tokens,
        labels=tuple(labels),
        note=None if header.get("note") is None else str(header["note"]),
        turn_note=None if header.get("turn_note") is None else str(header["turn_note"]),
    )


class _Rows:
    def __init__(self, labels: tuple[str, ...], block_tokens: int) -> None:
        self._labels = labels
        self.block_tokens = block_tokens

    def rows(self, data: dict[str, Any], where: str) -> Iterator[TraceRow]:
        for key in data:
            if key not in _KEYS:
                raise UserError(f"{where}: {key} is not a key of {FORMAT} (known: {', '.join(_KEYS)})")
        tokens = json_count(data, "prompt_tokens", where, low=1)
        time = json_value(data, "arrival_ns", where)
        session = data.get("session")
        yield TraceRow(
            time_ns=None if time is None else json_time_ns(data, "arrival_ns", where, unit_ns=1),
            prompt_tokens=tokens,
            output_tokens=json_count(data, "output_tokens", where, low=0),
            blocks=None if data.get("blocks") is None else self._blocks(data, tokens, where),
            labels=self._labels_of(data.get("labels", {}), where),
            session=None if session is None else str(session),
            pause_ns=json_time_ns(data, "pause_ns", where, unit_ns=1) if "pause_ns" in data else 0,
            guesses=_guesses(data.get("guessed", []), where),
        )

    def _blocks(self, data: dict[str, Any], tokens: int, where: str) -> tuple[int, ...]:
        ids = json_block_ids(data, where, "blocks")
        if len(ids) != tokens // self.block_tokens:
            raise UserError(
                f"{where}: {len(ids)} blocks for prompt_tokens {tokens}; {tokens // self.block_tokens} full "
                f"blocks of {self.block_tokens} tokens were expected"
            )
        return tuple(ids)

    def _labels_of(self, labels: object, where: str) -> dict[str, str]:
        if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
            raise UserError(f"{where}: labels is not an object of texts")
        for name in labels:
            if name not in self._labels:
                raise UserError(f"{where}: the label {name!r} is not in the header")
        return labels


def _guesses(names: object, where: str) -> tuple[Guess, ...]:
    if not isinstance(names, list) or not all(name in _GUESSES for name in names):
        raise UserError(f"{where}: guessed is not a list of {', '.join(_GUESSES)}")
    return tuple(_GUESSES[name] for name in names)


def write_requests(path: Path, rows: Iterable[RowColumns | TraceRow], reader: Reader) -> int:
    """Write `rows`, which `reader` has read, as a trace, the first arrival at 0, and return their number.

    Ids of blocks are given anew, from 0 in order of first use.
    """
    header = {
        "format": FORMAT,
        "version": VERSION,
        "block_tokens": reader.block_tokens,
        "labels": list(reader.labels),
    }
    header |= {"note": reader.note} if reader.note else {}
    header |= {"turn_note": reader.turn_note} if reader.turn_note else {}
    numbers: dict[int, int] = {}
    zero_ns: int | None = None
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(header) + "\n")
        for row in rows:
            if isinstance(row, RowColumns):
                if row.count:
                    zero_ns = int(row.time_ns[0]) if zero_ns is None else zero_ns
                    file.writelines(_lines_of(row, zero_ns, numbers))
                    count += row.count
                continue
            if zero_ns is None:
                zero_ns = row.time_ns
            file.write(json.dumps(_written(row, zero_ns or 0, numbers)) + "\n")
            count += 1
    return count


def _lines_of(rows: RowColumns, zero_ns: int, numbers: dict[int, int]) -> Iterator[str]:
    columns = (rows.time_ns - zero_ns, rows.prompt_tokens, rows.output_tokens)
    blocks = _blocks_of(rows, numbers)
    for time, prompt, output in zip(*(column.tolist() for column in columns), strict=True):
        lengths = f'"prompt_tokens": {prompt}, "output_tokens": {output}'
        yield f'{{"arrival_ns": {time}, {lengths}{next(blocks)}}}\n'


def _blocks_of(rows: RowColumns, numbers: dict[int, int]) -> Iterator[str]:
    """Yield what each row says of its blocks."""
    if rows.blocks is None or rows.starts is None:
        yield from itertools.repeat("")
        return
    ids = [numbers.setdefault(block, len(numbers)) for block in rows.blocks.tolist()]
    for begin, end in itertools.pairwise(rows.starts.tolist()):
        yield f', "blocks": {ids[begin:end]}'


def _written(row: TraceRow, zero_ns: int, numbers: dict[int, int]) -> dict[str, Any]:
    written: dict[str, Any] = {
        "arrival_ns": None if row.time_ns is None else row.time_ns - zero_ns,
        "prompt_tokens": row.prompt_tokens,
        "output_tokens": row.output_tokens,
    }
    if row.blocks is not None:
        written["blocks"] = [numbers.setdefault(block, len(numbers)) for block in row.blocks]
    if row.labels:
        written["labels"] = row.labels
    if row.session is not None:
        written |= {"session": row.session, "pause_ns": row.pause_ns}
    if row.guesses:
        written["guessed"] = [_NAMES[guess] for guess in row.guesses]
    return written
