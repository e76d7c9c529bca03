"""The format of BurstGPT (https://github.com/HPMLL/BurstGPT): one CSV row per request to GPT-3.5 or GPT-4.

    Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type

`Timestamp` is seconds from midnight of the first day. Newer files also have `Session ID` and `Elapsed
time`, in any position: columns are found by their names. A row with 0 response tokens is a request that
failed, and is left out. Sessions are not turned into shared prefixes: nothing published says whether the
tokens of a request include its earlier turns.
"""

from collections.abc import Iterator
from typing import Any

from experiments.trace_formats.lines import cell_rows
from experiments.trace_formats.pieces import Cells, pieces_of, plain_seconds
from experiments.trace_formats.rows import BLOCK_TOKENS, Reader, TraceRow
from experiments.trace_formats.values import text_count, text_time_ns

COLUMNS = ("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type")
"""The columns that every file has; newer ones have more."""

LABELS = ("Model", "Log Type")


def _rows(cells: dict[str, Any], where: str) -> Iterator[TraceRow]:
    response = text_count("Response tokens", cells["Response tokens"], where, low=0)
    # A failed request is left out, so it may lack a prompt.
    request = text_count("Request tokens", cells["Request tokens"], where, low=1 if response else 0)
    time_ns = text_time_ns("Timestamp", cells["Timestamp"], where)
    if response:
        yield TraceRow(
            time_ns=time_ns,
            prompt_tokens=request,
            output_tokens=response,
            blocks=None,
            labels={name: cells[name] for name in LABELS},
        )


_CELLS = Cells(
    header=COLUMNS,
    rows_of=_rows,
    time="Timestamp",
    time_ns=plain_seconds,
    prompt="Request tokens",
    output="Response tokens",
    failed_without_output=True,
)

READER = Reader(
    placed=lambda path: cell_rows(path, COLUMNS, _rows),
    time="Timestamp",
    keys=(*COLUMNS, "Session ID", "Elapsed time"),
    block_tokens=BLOCK_TOKENS,
    labels=LABELS,
    note="requests that failed (0 response tokens) are left out",
    pieces=lambda path: pieces_of(path, _CELLS),
)
