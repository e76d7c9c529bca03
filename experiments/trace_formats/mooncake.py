"""Mooncake's trace format, and what other programs have added to it: JSON lines, each a request.

    {"timestamp": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [...]}

A block has 512 tokens. Its id stands for it and everything before it, so two prompts that share their first
n ids share their first n blocks. The last id may stand for a block that is not full: such a block cannot be
reused, and is left out of the blocks of a row.

Dynamo and AIPerf add the turns of conversations: a later row of a `session_id` is sent `delay` ms after the
answer to the row before. In Dynamo's `mooncake`, `input_length` is the whole prompt. In its
`mooncake-delta`, as in AIPerf, it is what the turn adds to all earlier prompts and answers.
"""

from collections.abc import Iterator
from typing import Any

from controller.units import NS_PER_MS
from experiments.errors import UserError
from experiments.trace_formats.lines import json_rows
from experiments.trace_formats.rows import Guess, Reader, TraceRow
from experiments.trace_formats.values import (
    MAX_TOKENS,
    estimated_tokens,
    json_block_ids,
    json_count,
    json_time_ns,
)

BLOCK_TOKENS = 512
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


def whole_prompts(data: dict[str, Any], where: str) -> Iterator[TraceRow]:
    """Yield the row of a request whose prompt has all that it is made of."""
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
    yield TraceRow(
        time_ns=None if data.get(time) is None else json_time_ns(data, time, where, unit_ns=NS_PER_MS),
        prompt_tokens=tokens,
        output_tokens=output,
        blocks=_blocks(data, tokens, where),
        session=None if session is None else str(session),
        pause_ns=0 if data.get(delay) is None else json_time_ns(data, delay, where, unit_ns=NS_PER_MS),
        guesses=tuple(guesses),
    )


def _first(data: dict[str, Any], keys: tuple[str, ...]) -> str:
    """Return the first of `keys` that the row has; if it has none, the first one, which then is missing."""
    return next((key for key in keys if data.get(key) is not None), keys[0])


def _blocks(data: dict[str, Any], tokens: int, where: str) -> tuple[int, ...] | None:
    if data.get("hash_ids") is None:
        return None
    ids = json_block_ids(data, where)
    blocks = -(-tokens // BLOCK_TOKENS)
    if len(ids) != blocks:
        raise UserError(
            f"{where}: {len(ids)} hash_ids for input_length {tokens}; "
            f"{blocks} blocks of {BLOCK_TOKENS} tokens were expected"
        )
    return tuple(ids[: tokens // BLOCK_TOKENS])


class AddedPrompts:
    """Makes whole prompts of rows that have only what a turn adds.

    A later turn begins with the prompt and the answer of the turn before it. The full blocks of these are
    the session's own, except for those of its first prompt: only these have ids in the file that other
    sessions may share. Ids that are made here are negative, so that no file has them.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, int] = {}
        self._blocks: dict[str, tuple[int, ...]] = {}
        self._next = -(2**62)

    def rows(self, data: dict[str, Any], where: str) -> Iterator[TraceRow]:
        for row in whole_prompts(data, where):
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
            missing = tokens // BLOCK_TOKENS - len(known)
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


READER = Reader(
    placed=lambda path: json_rows(path, whole_prompts),
    time="timestamp",
    keys=KEYS,
    block_tokens=BLOCK_TOKENS,
)
ADDED_READER = Reader(
    placed=lambda path: json_rows(path, AddedPrompts().rows),
    time="timestamp",
    keys=KEYS,
    block_tokens=BLOCK_TOKENS,
    note="the prompt of a turn is all earlier prompts and answers of its session, and what its row adds",
)
