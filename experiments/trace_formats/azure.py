"""The format of Azure's public LLM inference traces of 2023 and 2024: one CSV row per request.

The header is `TIMESTAMP,ContextTokens,GeneratedTokens`. A time is UTC with up to nine decimals:
`2023-11-16 18:17:03.9799600` in the traces of 2023, `2024-05-10 00:00:00.009930+00:00` in the newer ones.
The traces do not say which prompts share a prefix, so rows have no blocks.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from controller.units import NS_PER_S
from experiments.errors import UserError
from experiments.trace_formats.rows import Reader, TraceRow, in_order
from experiments.trace_formats.text_file import lines_of
from experiments.trace_formats.values import columns_of, text_count

HEADER = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BLOCK_TOKENS = 512
NO_REUSE = "the trace does not say which prompts share a prefix: nothing is reused"
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?")


def is_header(line: str) -> bool:
    return columns_of(line) == HEADER


def rows(path: Path) -> Iterator[TraceRow]:
    """Yield the rows of the trace at `path`. Raises `UserError` for an invalid file or line."""
    return in_order(_rows(path), "TIMESTAMP")


def _rows(path: Path) -> Iterator[tuple[str, TraceRow]]:
    for number, line in enumerate(lines_of(path), start=1):
        if number == 1 and not is_header(line):
            raise UserError(f"{path}, line 1: the header must be {','.join(HEADER)}")
        if number > 1 and line.strip():
            where = f"{path}, line {number}"
            yield where, _row(line, where)


def _row(line: str, where: str) -> TraceRow:
    cells = columns_of(line)
    if len(cells) != len(HEADER):
        raise UserError(f"{where}: {len(cells)} values, expected {len(HEADER)}")
    time, context, generated = cells
    return TraceRow(
        time_ns=_time_ns(time, where),
        prompt_tokens=text_count("ContextTokens", context, where, low=1),
        output_tokens=text_count("GeneratedTokens", generated, where, low=0),
        blocks=None,
    )


def _time_ns(text: str, where: str) -> int:
    """Return nanoseconds since 1970. `datetime` keeps too few decimals, so the fraction is read apart."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise UserError(f"{where}: TIMESTAMP is {text!r}; expected like 2023-11-16 18:15:46.6805900 (UTC)")
    day, time, fraction = match.groups()
    try:
        whole = datetime.fromisoformat(f"{day} {time}").replace(tzinfo=UTC)
    except ValueError as error:
        raise UserError(f"{where}: TIMESTAMP is {text!r}: {error}") from None
    return int(whole.timestamp()) * NS_PER_S + int((fraction or "0").ljust(9, "0"))


READER = Reader(rows=rows, block_tokens=BLOCK_TOKENS, note=NO_REUSE)
