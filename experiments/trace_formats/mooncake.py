"""Mooncake's trace format: JSON lines with the ids of the blocks of each prompt.

A row is `{"timestamp": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [...]}`.
A block has 512 tokens. Its id stands for it and everything before it, so two prompts that share their first
n ids share their first n blocks. The last id may stand for a block that is not full: such a block cannot be
reused, and is left out of the blocks of a row.
"""

from collections.abc import Iterator
from pathlib import Path

from controller.units import NS_PER_MS
from experiments.errors import UserError
from experiments.trace_formats.rows import Reader, TraceRow, in_order
from experiments.trace_formats.text_file import lines_of
from experiments.trace_formats.values import MAX_S, MAX_TOKENS, json_block_ids, json_count, json_object

BLOCK_TOKENS = 512


def rows(path: Path) -> Iterator[TraceRow]:
    """Yield the rows of the trace at `path`. Raises `UserError` for an invalid file or line."""
    return in_order(_rows(path), "timestamp")


def _rows(path: Path) -> Iterator[tuple[str, TraceRow]]:
    for number, line in enumerate(lines_of(path), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _row(line, where)


def _row(line: str, where: str) -> TraceRow:
    data = json_object(line, where)
    timestamp = json_count(data, "timestamp", where, low=0, high=MAX_S * 1000)
    tokens = json_count(data, "input_length", where, low=1, high=MAX_TOKENS)
    output = json_count(data, "output_length", where, low=0, high=MAX_TOKENS)
    ids = json_block_ids(data, where)
    blocks = -(-tokens // BLOCK_TOKENS)
    if len(ids) != blocks:
        raise UserError(
            f"{where}: {len(ids)} hash_ids for input_length {tokens}; "
            f"{blocks} blocks of {BLOCK_TOKENS} tokens were expected"
        )
    return TraceRow(
        time_ns=timestamp * NS_PER_MS,
        prompt_tokens=tokens,
        output_tokens=output,
        blocks=tuple(ids[: tokens // BLOCK_TOKENS]),
    )


READER = Reader(rows=rows, block_tokens=BLOCK_TOKENS)
