"""The format of Azure's public LLM inference traces: one CSV row per request, no prompt contents.

The header is `TIMESTAMP,ContextTokens,GeneratedTokens`; a time is UTC with up to nine digits of
fraction. Nothing tells which prompts share a prefix, so every block here is one of a kind.
"""

import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from experiments.errors import UserError
from experiments.workloads.trace_file import (
    AZURE_HEADER,
    MAX_TOKENS,
    is_azure_header,
    read_lines,
    take,
)
from experiments.workloads.workload import NS_PER_S, Workload
from testbed.job import Request

BLOCK_TOKENS = 512
NO_REUSE = "the trace does not say which prompts share a prefix: nothing is reused"
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?")


class _Row(msgspec.Struct, frozen=True):
    time_ns: int
    context_tokens: int
    generated_tokens: int


def load(path: Path, *, requests: int, skip: int, slo_class: str) -> Workload:
    """`requests` rows of the trace at `path` after the first `skip`; the first one arrives at 0.

    Raises `UserError` for a file or row that is not right (every row is checked, also those that
    are not taken) and when there are too few rows.
    """
    taken = take(_rows(path), path=path, requests=requests, skip=skip)
    made: list[Request] = []
    next_block = 0
    for i, row in enumerate(taken):
        blocks = row.context_tokens // BLOCK_TOKENS
        made.append(
            Request(
                id=i,
                arrival_ns=row.time_ns - taken[0].time_ns,
                prompt_tokens=row.context_tokens,
                output_tokens=row.generated_tokens,
                blocks=tuple(range(next_block, next_block + blocks)),
                block_tokens=BLOCK_TOKENS,
                slo_class=slo_class,
            )
        )
        next_block += blocks
    return Workload(requests=tuple(made), notes=(NO_REUSE,))


def _rows(path: Path) -> list[_Row]:
    lines = read_lines(path)
    if not is_azure_header(lines[0]):
        raise UserError(f"{path}, line 1: the header must be {','.join(AZURE_HEADER)}")
    rows: list[_Row] = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = _row(line, where)
        if rows and row.time_ns < rows[-1].time_ns:
            raise UserError(f"{where}: TIMESTAMP is before that of the row above; a trace is sorted by time")
        rows.append(row)
    return rows


def _row(line: str, where: str) -> _Row:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(AZURE_HEADER):
        raise UserError(f"{where}: {len(cells)} values, expected {len(AZURE_HEADER)}")
    time, context, generated = cells
    return _Row(
        _time_ns(time, where),
        _count("ContextTokens", context, where, low=1),
        _count("GeneratedTokens", generated, where, low=0),
    )


def _time_ns(text: str, where: str) -> int:
    """Nanoseconds since 1970. The trace has more digits than `datetime` keeps, hence in two parts."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise UserError(f"{where}: TIMESTAMP is {text!r}; expected like 2023-11-16 18:15:46.6805900 (UTC)")
    day, time, fraction = match.groups()
    try:
        whole = datetime.fromisoformat(f"{day} {time}").replace(tzinfo=UTC)
    except ValueError as error:
        raise UserError(f"{where}: TIMESTAMP is {text!r}: {error}") from None
    return int(whole.timestamp()) * NS_PER_S + int((fraction or "0").ljust(9, "0"))


def _count(name: str, text: str, where: str, *, low: int) -> int:
    if not re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        raise UserError(f"{where}: {name} is {text!r}, not a whole number")
    value = int(text)
    if not low <= value <= MAX_TOKENS:
        raise UserError(f"{where}: {name} is {value}; allowed is {low} .. {MAX_TOKENS}")
    return value
