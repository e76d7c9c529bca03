"""Mooncake's trace format: JSON lines with the ids of the blocks each prompt is made of.

A row is `{"timestamp": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [...]}`.
A block has 512 tokens; its id stands for it and all that is before it, so two prompts that share
their first n ids share their first n blocks. The last id may stand for a block that is not full:
it is no prefix anybody could reuse, and is left out of a request's blocks.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from experiments.errors import UserError
from experiments.workloads import ticks
from experiments.workloads.trace_file import MAX_TOKENS, read_lines, take
from experiments.workloads.workload import Workload
from testbed.job import Request

BLOCK_TOKENS = 512
_NS_PER_MS = 1_000_000
_MAX_MS = 10**13


class _Row(msgspec.Struct, frozen=True):
    timestamp_ms: int
    input_length: int
    output_length: int
    hash_ids: list[int]


def load(path: Path, *, requests: int, skip: int, slo_class: str, spread_ticks: bool, seed: int) -> Workload:
    """`requests` rows of the trace at `path` after the first `skip`; the first one arrives at 0.

    Where the trace's clock ticks coarsely, the rows of one tick are spread inside it if
    `spread_ticks` says so; a note tells. Raises `UserError` for a file or row that is not right
    (every row is checked, also those that are not taken) and when there are too few rows.
    """
    rows = _rows(path)
    arrivals_ns = [row.timestamp_ms * _NS_PER_MS for row in rows]
    notes: tuple[str, ...] = ()
    tick_ns = ticks.tick_of(arrivals_ns)
    if spread_ticks and tick_ns is not None:
        arrivals_ns = ticks.spread(arrivals_ns, tick_ns, seed)
        notes = (f"arrivals spread inside the trace's {tick_ns / 1e9:.1f} s tick",)
    taken = take(list(zip(arrivals_ns, rows, strict=True)), path=path, requests=requests, skip=skip)
    start_ns = taken[0][0]
    return Workload(
        requests=tuple(
            Request(
                id=i,
                arrival_ns=arrival_ns - start_ns,
                prompt_tokens=row.input_length,
                output_tokens=row.output_length,
                blocks=tuple(row.hash_ids[: row.input_length // BLOCK_TOKENS]),
                block_tokens=BLOCK_TOKENS,
                slo_class=slo_class,
            )
            for i, (arrival_ns, row) in enumerate(taken)
        ),
        notes=notes,
    )


def _rows(path: Path) -> list[_Row]:
    rows: list[_Row] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = _row(line, where)
        if rows and row.timestamp_ms < rows[-1].timestamp_ms:
            raise UserError(
                f"{where}: timestamp {row.timestamp_ms} is before the {rows[-1].timestamp_ms} "
                "of the row above; a trace is sorted by time"
            )
        rows.append(row)
    return rows


def _row(line: str, where: str) -> _Row:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"{where}: not JSON") from None
    if not isinstance(data, dict):
        raise UserError(f"{where}: not a JSON object")
    timestamp = _count(data, "timestamp", where, low=0, high=_MAX_MS)
    tokens = _count(data, "input_length", where, low=1, high=MAX_TOKENS)
    output = _count(data, "output_length", where, low=0, high=MAX_TOKENS)
    ids = _value(data, "hash_ids", where)
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < 2**63 for i in ids):
        raise UserError(f"{where}: hash_ids is not a list of whole numbers from 0")
    blocks = -(-tokens // BLOCK_TOKENS)
    if len(ids) != blocks:
        raise UserError(
            f"{where}: {len(ids)} hash_ids for input_length {tokens}; "
            f"{blocks} blocks of {BLOCK_TOKENS} tokens were expected"
        )
    return _Row(timestamp, tokens, output, ids)


def _value(row: dict[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise UserError(f"{where}: {key} is missing")
    return row[key]


def _count(row: dict[str, Any], key: str, where: str, *, low: int, high: int) -> int:
    value = _value(row, key, where)
    if type(value) is not int:
        raise UserError(f"{where}: {key} is {value!r}, not a whole number")
    if not low <= value <= high:
        raise UserError(f"{where}: {key} is {value}; allowed is {low} .. {high}")
    return value
