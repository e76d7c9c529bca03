"""The format of the Qwen-Bailian traces (https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon).

JSON lines, each a request:

    {"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 521, "output_length": 132,
     "type": "text", "turn": 2, "hash_ids": [1089, 1090, ...]}

`timestamp` is seconds from the start of the trace. A block has 16 tokens. Its id stands for the content of
the block alone: the same text after another beginning has the same id, but not the same KV. So this module
makes new ids, one for each prefix of a prompt.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from controller.units import NS_PER_S
from experiments.errors import UserError
from experiments.trace_formats.lines import json_rows
from experiments.trace_formats.rows import Reader, TraceRow
from experiments.trace_formats.values import json_block_ids, json_count, json_time_ns

BLOCK_TOKENS = 16
LABELS = ("type", "turn")
KEYS = ("chat_id", "parent_chat_id", "timestamp", "input_length", "output_length", *LABELS, "hash_ids")
_NO_PREFIX = -1


class PrefixIds:
    """Gives each sequence of blocks that a prompt begins with an id of its own."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int | tuple[int, ...]], int] = {}

    def chain(self, blocks: Iterable[int | tuple[int, ...]]) -> tuple[int, ...]:
        """Return the ids of the prefixes that end at each of `blocks`, the blocks of a prompt in order.

        A block is anything that stands for its content: an id, or its tokens.
        """
        chained: list[int] = []
        before = _NO_PREFIX
        for block in blocks:
            before = self._known.setdefault((before, block), len(self._known))
            chained.append(before)
        return tuple(chained)


class _Rows:
    def __init__(self) -> None:
        self._prefixes = PrefixIds()

    def rows(self, data: dict[str, Any], where: str) -> Iterator[TraceRow]:
        time_ns = json_time_ns(data, "timestamp", where, unit_ns=NS_PER_S)
        tokens = json_count(data, "input_length", where, low=1)
        output = json_count(data, "output_length", where, low=0)
        yield TraceRow(
            time_ns=time_ns,
            prompt_tokens=tokens,
            output_tokens=output,
            blocks=None if data.get("hash_ids") is None else self._blocks(data, tokens, where),
            labels={name: _label(data, name, where) for name in LABELS if name in data},
        )

    def _blocks(self, data: dict[str, Any], tokens: int, where: str) -> tuple[int, ...]:
        ids = json_block_ids(data, where)
        full, rest = divmod(tokens, BLOCK_TOKENS)
        # The format does not say whether a last block that is not full has an id.
        if not full <= len(ids) <= full + bool(rest):
            raise UserError(
                f"{where}: {len(ids)} hash_ids for input_length {tokens}; "
                f"{full + bool(rest)} blocks of {BLOCK_TOKENS} tokens were expected"
            )
        return self._prefixes.chain(ids[:full])


def _label(data: dict[str, object], name: str, where: str) -> str:
    value = data[name]
    if type(value) not in (str, int):
        raise UserError(f"{where}: {name} is {value!r}, neither a word nor a whole number")
    return str(value)


READER = Reader(
    placed=lambda path: json_rows(path, _Rows().rows),
    time="timestamp",
    keys=KEYS,
    block_tokens=BLOCK_TOKENS,
    labels=LABELS,
)
