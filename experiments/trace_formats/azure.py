"""The format of Azure's public LLM inference traces of 2023 and 2024: one CSV row per request.

The header is `TIMESTAMP,ContextTokens,GeneratedTokens`. A time is UTC with up to nine decimals:
`2023-11-16 18:17:03.9799600` in the traces of 2023, `2024-05-10 00:00:00.009930+00:00` in the newer ones.
The traces do not say which prompts share a prefix, so rows have no blocks.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from controller.units import NS_PER_S
from experiments.errors import UserError
from experiments.trace_formats.lines import cell_rows
from experiments.trace_formats.pieces import Cells, pieces_of, plain_utc
from experiments.trace_formats.rows import BLOCK_TOKENS, Reader, TraceRow
from experiments.trace_formats.values import MAX_S, text_count

HEADER = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?")


def _rows(cells: dict[str, Any], where: str) -> Iterator[TraceRow]:
    yield TraceRow(
        time_ns=_time_ns(cells["TIMESTAMP"], where),
        prompt_tokens=text_count("ContextTokens", cells["ContextTokens"], where, low=1),
        output_tokens=text_count("GeneratedTokens", cells["GeneratedTokens"], where, low=0),
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
    seconds = int(whole.timestamp())
    if not 0 <= seconds <= MAX_S:
        raise UserError(f"{where}: TIMESTAMP is {text!r}; allowed are the years 1970 to 2254")
    return seconds * NS_PER_S + int((fraction or "0").ljust(9, "0"))


_CELLS = Cells(
    header=HEADER, rows_of=_rows, time=HEADER[0], time_ns=plain_utc, prompt=HEADER[1], output=HEADER[2]
)

READER = Reader(
    placed=lambda path: cell_rows(path, HEADER, _rows),
    time="TIMESTAMP",
    keys=HEADER,
    block_tokens=BLOCK_TOKENS,
    pieces=lambda path: pieces_of(path, _CELLS),
)
