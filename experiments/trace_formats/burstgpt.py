"""The format of BurstGPT (https://github.com/HPMLL/BurstGPT): one CSV row per request to GPT-3.5 or GPT-4.

    Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type

`Timestamp` is seconds from midnight of the first day. Newer files also have `Session ID` and `Elapsed
time`, in any position: columns are found by their names. A row with 0 response tokens is a request that
failed, and is left out. Sessions are not turned into shared prefixes: nothing published says whether the
tokens of a request include its earlier turns.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from controller.units import NS_PER_S
from experiments.errors import UserError
from experiments.trace_formats.azure import BLOCK_TOKENS, NO_REUSE
from experiments.trace_formats.rows import Reader, TraceRow, in_order
from experiments.trace_formats.text_file import lines_of
from experiments.trace_formats.values import MAX_S, columns_of, text_count

COLUMNS = ("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type")
"""The columns that every file has; newer ones have more."""

LABELS = ("Model", "Log Type")


def is_header(line: str) -> bool:
    return set(COLUMNS) <= set(columns_of(line))


def rows(path: Path) -> Iterator[TraceRow]:
    """Yield the rows of the trace at `path` that did not fail. Raises `UserError` for an invalid line."""
    ordered = in_order(_rows(path), "Timestamp")
    return (row for row in ordered if row.output_tokens)


def _rows(path: Path) -> Iterator[tuple[str, TraceRow]]:
    columns: tuple[str, ...] = ()
    for number, line in enumerate(lines_of(path), start=1):
        where = f"{path}, line {number}"
        if number == 1:
            if not is_header(line):
                raise UserError(f"{where}: the header must have {','.join(COLUMNS)}")
            columns = columns_of(line)
        elif line.strip():
            cells = columns_of(line)
            if len(cells) != len(columns):
                raise UserError(f"{where}: {len(cells)} values, expected {len(columns)}")
            yield where, _row(dict(zip(columns, cells, strict=True)), where)


def _row(cells: dict[str, str], where: str) -> TraceRow:
    response = text_count("Response tokens", cells["Response tokens"], where, low=0)
    # A failed request is left out, so it may lack a prompt.
    request = text_count("Request tokens", cells["Request tokens"], where, low=1 if response else 0)
    return TraceRow(
        time_ns=_time_ns(cells["Timestamp"], where),
        prompt_tokens=request,
        output_tokens=response,
        blocks=None,
        labels={name: cells[name] for name in LABELS},
    )


def _time_ns(text: str, where: str) -> int:
    if not re.fullmatch(r"[0-9]{1,11}(\.[0-9]{1,12})?", text):
        raise UserError(f"{where}: Timestamp is {text!r}, not a number of seconds")
    seconds = Decimal(text)
    if seconds > MAX_S:
        raise UserError(f"{where}: Timestamp is {text}; allowed is 0 .. {MAX_S}")
    return int(seconds * NS_PER_S)


READER = Reader(
    rows=rows,
    block_tokens=BLOCK_TOKENS,
    labels=LABELS,
    note=f"{NO_REUSE}; requests that failed (0 response tokens) are left out",
)
