"""Mooncake's trace format, and what other programs have added to it: JSON lines, each a request.

    {"timestamp": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [...]}

A block has 512 tokens, or another size that the numbers of ids tell. Its id stands for it and everything
before it, so two prompts that share their first n ids share their first n blocks. The last id may stand for
a block that is not full: such a block cannot be reused, and is left out of the blocks of a row.

Dynamo and AIPerf add the turns of conversations: a later row of a `session_id` is sent `delay` ms after the
answer to the row before. In Dynamo's `mooncake`, `input_length` is the whole prompt. In its
`mooncake-delta`, as in AIPerf, it is what the turn adds to all earlier prompts and answers.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from controller.units import NS_PER_MS
from experiments.errors import UserError
from experiments.trace_formats.json_pieces import Keys, json_pieces
from experiments.trace_formats.lines import json_rows
from experiments.trace_formats.rows import BLOCK_TOKENS, Guess, Piece, PlacedRow, Reader, TraceRow
from experiments.trace_formats.text_file import lines_of
from experiments.trace_formats.values import (
    MAX_TOKENS,
    estimated_tokens,
    json_block_ids,
    json_count,
    json_time_ns,
)

SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Sizes of a block that programs use, in tokens."""

_ENOUGH_ROWS = 1000
_WHOLE = (
    "the row of a turn is read as its whole prompt; workload.kind: mooncake_delta reads it as what the turn "
    "adds to all earlier prompts and answers of its session"
)
_ADDED = "the row of a turn is read as what it adds to all earlier prompts and answers of its session"
PROMPT_KEYS = ("input_length", "input_tokens", "text_input")
"""What a row says of its prompt, by one of these."""

TIMES = ("timestamp", "created_time")
_OUTPUTS = ("output_length", "output_tokens")
_DELAYS = ("delay", "delay_ms")
_NOT_MODELLED = {
    "wait_for": "requests that wait for others than the turn before are not modelled",
    "tool_wait_ms": "waits of tools are modelled as the delay of a turn only",
    "messages": "a prompt of messages has no length in tokens: give input_length",
    "payload": "a prompt of a payload has no length in tokens: give input_length",
}
KEYS = (*PROMPT_KEYS, *TIMES, *_OUTPUTS, *_DELAYS, "hash_ids", "session_id")
_PLAIN = Keys(
    time=TIMES[0],
    prompt=PROMPT_KEYS[0],
    output=_OUTPUTS[0],
    unit_ns=NS_PER_MS,
    ids="hash_ids",
    partial_ids=True,
    single=(*PROMPT_KEYS[1:], *TIMES[1:], *_OUTPUTS[1:], *_DELAYS, "session_id", *_NOT_MODELLED),
    others=True,
)


def reader_of(path: Path, *, added: bool = False) -> Reader:
    """Return the reader of the file at `path`. With `added`, a row has only what its turn adds."""
    size = block_tokens_of(path)
    note = None if size == BLOCK_TOKENS else f"blocks have {size} tokens: the numbers of hash_ids say so"

    def placed(path: Path) -> Iterator[PlacedRow]:
        rows = WholePrompts(size)
        return json_rows(path, AddedPrompts(rows).rows if added else rows.rows)

    def pieces(path: Path) -> Iterator[Piece]:
        keys = msgspec.structs.replace(_PLAIN, block_tokens=size)
        return json_pieces(path, keys, WholePrompts(size).rows)

    return Reader(
        placed=placed,
        pieces=None if added else pieces,
        time="timestamp",
        keys=KEYS,
        block_tokens=size,
        note=note,
        turn_note=_ADDED if added else _WHOLE,
    )


def block_tokens_of(path: Path) -> int:
    """Return the size of a block that the first rows of the file agree with: 512 if they do with that.

    A row of n tokens has n over the size ids, rounded up. If the rows agree with no size, or with several
    of which none is 512, it is 512, too, so that a row is refused for its number of ids.
    """
    sizes = set(SIZES)
    for line in itertools.islice(lines_of(path), _ENOUGH_ROWS):
        try:
            row = json.loads(line)
            tokens, ids = row[_first(row, PROMPT_KEYS)], len(row["hash_ids"])
            sizes = {size for size in sizes if -(-tokens // size) == ids}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # a row without ids, or a bad one, which is refused when it is read
    return sizes.pop() if len(sizes) == 1 else BLOCK_TOKENS


class WholePrompts:
    """Makes rows of requests whose prompts have all that they are made of, in blocks of `block_tokens`."""

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens

    def rows(self, data: dict[str, Any], where: str) -> Iterator[TraceRow]:
        yield _row(data, where, self.block_tokens)


def _row(data: dict[str, Any], where: str, block_tokens: int) -> TraceRow:
    for key, reason in _NOT_MODELLED.items():
        if data.get(key):
            raise UserError(f"{where}: {key}: {reason}")
    guesses: list[Guess] = []
    length = _first(data, PROMPT_KEYS)
    if length == "text_input" and isinstance(data[length], str):
        tokens = estimated_tokens(data[length])
        guesses.append(Guess.PROMPT)
    else:
        tokens = json_count(data, length, where, low=1)
    output_key, output = _first(data, _OUTPUTS), 1
    if data.get(output_key) is None:
        guesses.append(Guess.OUTPUT)
    else:
        output = json_count(data, output_key, where, low=0)
    session = data.get("session_id")
    if session is not None and type(session) not in (str, int):
        raise UserError(f"{where}: session_id is {session!r}, neither a word nor a whole number")
    time, delay = _first(data, TIMES), _first(data, _DELAYS)
    if session is None and data.get(delay):
        raise UserError(f"{where}: {delay} without a session_id: there is no turn to wait for")
    return TraceRow(
        time_ns=None if data.get(time) is None else json_time_ns(data, time, where, unit_ns=NS_PER_MS),
        prompt_tokens=tokens,
        output_tokens=output,
        blocks=_blocks(data, tokens, where, block_tokens),
        session=None if session is None else str(session),
        pause_ns=0 if data.get(delay) is None else json_time_ns(data, delay, where, unit_ns=NS_PER_MS),
        guesses=tuple(guesses),
    )


def _first(data: dict[str, Any], keys: tuple[str, ...]) -> str:
    """Return the first of `keys` that the row has; if it has none, the first one, which then is missing."""
    if data.get(keys[0]) is not None:
        return keys[0]
    return next((key for key in keys if data.get(key) is not None), keys[0])


def _blocks(data: dict[str, Any], tokens: int, where: str, block_tokens: int) -> tuple[int, ...] | None:
    if data.get("hash_ids") is None:
        return None
    ids = json_block_ids(data, where)
    blocks = -(-tokens // block_tokens)
    if len(ids) != blocks:
        raise UserError(
            f"{where}: {len(ids)} hash_ids for input_length {tokens}; "
            f"{blocks} blocks of {block_tokens} tokens were expected"
        )
    return tuple(ids[: tokens // block_tokens])


class AddedPrompts:
    """Makes whole prompts of rows that have only what a turn adds.

    A later turn begins with the prompt and the answer of the turn before it. The full blocks of these are
    the session's own, except for those of its first prompt: only these have ids in the file that other
    sessions may share. Ids that are made here are negative, so that no file has them.
    """

    def __init__(self, whole: WholePrompts) -> None:
        self._whole = whole
        self._tokens: dict[str, int] = {}
        self._blocks: dict[str, tuple[int, ...]] = {}
        self._next = -(2**62)

    def rows(self, data: dict[str, Any], where: str) -> Iterator[TraceRow]:
        for row in self._whole.rows(data, where):
            if row.session is None:
                yield row
                continue
            before = self._tokens.get(row.session)
            tokens = row.prompt_tokens + (before or 0)
            if tokens > MAX_TOKENS:
                raise UserError(
                    f"{where}: a conversation of {tokens} tokens; at most {MAX_TOKENS} are allowed"
                )
            known = self._blocks[row.session] if before is not None else row.blocks or ()
            missing = tokens // self._whole.block_tokens - len(known)
            blocks = (*known, *range(self._next, self._next + missing))
            self._next += missing
            self._tokens[row.session], self._blocks[row.session] = tokens + row.output_tokens, blocks
            yield TraceRow(
                time_ns=row.time_ns,
                prompt_tokens=tokens,
                output_tokens=row.output_tokens,
                blocks=blocks,
                session=row.session,
                pause_ns=row.pause_ns,
                guesses=row.guesses,
            )
