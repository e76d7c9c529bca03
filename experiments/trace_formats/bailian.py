"""The format of the Qwen-Bailian traces (https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon).

JSON lines, each a request:

    {"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 521, "output_length": 132,
     "type": "text", "turn": 2, "hash_ids": [1089, 1090, ...]}

`timestamp` is seconds from the start of the trace. A block has 16 tokens. Its id stands for the content of
the block alone: the same text after another beginning has the same id, but not the same KV. So this module
makes new ids, one for each prefix of a prompt.
"""

from collections.abc import Iterator
from pathlib import Path

from controller.units import NS_PER_S
from experiments.errors import UserError
from experiments.trace_formats.rows import Reader, TraceRow, in_order
from experiments.trace_formats.text_file import lines_of
from experiments.trace_formats.values import (
    MAX_S,
    MAX_TOKENS,
    json_block_ids,
    json_count,
    json_object,
    json_value,
)

BLOCK_TOKENS = 16
LABELS = ("type", "turn")
_NO_PREFIX = -1


class PrefixIds:
    """Gives each sequence of block ids that a prompt begins with an id of its own."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], int] = {}

    def chain(self, ids: list[int]) -> tuple[int, ...]:
        """Return the ids of the prefixes that end at each of `ids`, the blocks of a prompt in order."""
        chained: list[int] = []
        before = _NO_PREFIX
        for block in ids:
            before = self._known.setdefault((before, block), len(self._known))
            chained.append(before)
        return tuple(chained)


def rows(path: Path) -> Iterator[TraceRow]:
    """Yield the rows of the trace at `path`. Raises `UserError` for an invalid file or line."""
    return in_order(_rows(path), "timestamp")


def _rows(path: Path) -> Iterator[tuple[str, TraceRow]]:
    prefixes = PrefixIds()
    for number, line in enumerate(lines_of(path), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _row(line, where, prefixes)


def _row(line: str, where: str, prefixes: PrefixIds) -> TraceRow:
    data = json_object(line, where)
    seconds = json_value(data, "timestamp", where)
    if type(seconds) not in (int, float):
        raise UserError(f"{where}: timestamp is {seconds!r}, not a number of seconds")
    if not 0 <= seconds <= MAX_S:
        raise UserError(f"{where}: timestamp is {seconds:g}; allowed is 0 .. {MAX_S}")
    tokens = json_count(data, "input_length", where, low=1, high=MAX_TOKENS)
    output = json_count(data, "output_length", where, low=0, high=MAX_TOKENS)
    ids = json_block_ids(data, where)
    full, rest = divmod(tokens, BLOCK_TOKENS)
    # The format does not say whether a last block that is not full has an id.
    if not full <= len(ids) <= full + bool(rest):
        raise UserError(
            f"{where}: {len(ids)} hash_ids for input_length {tokens}; "
            f"{full + bool(rest)} blocks of {BLOCK_TOKENS} tokens were expected"
        )
    return TraceRow(
        time_ns=round(seconds * NS_PER_S),
        prompt_tokens=tokens,
        output_tokens=output,
        blocks=prefixes.chain(ids[:full]),
        labels={name: _label(data, name, where) for name in LABELS if name in data},
    )


def _label(data: dict[str, object], name: str, where: str) -> str:
    value = data[name]
    if type(value) not in (str, int):
        raise UserError(f"{where}: {name} is {value!r}, neither a word nor a whole number")
    return str(value)


READER = Reader(rows=rows, block_tokens=BLOCK_TOKENS, labels=LABELS)
