"""The format of Vidur (https://github.com/microsoft/vidur, `data/processed_traces`): one CSV row per request.

    arrived_at,num_prefill_tokens,num_decode_tokens

`arrived_at` is in seconds. Files of lengths alone, such as `arxiv_summarization_stats_*.csv`, lack it.
"""

from collections.abc import Iterator
from typing import Any

from experiments.trace_formats.lines import cell_rows
from experiments.trace_formats.pieces import Cells, pieces_of, plain_seconds
from experiments.trace_formats.rows import BLOCK_TOKENS, Reader, TraceRow
from experiments.trace_formats.values import text_count, text_time_ns

COLUMNS = ("num_prefill_tokens", "num_decode_tokens")
_TIME = "arrived_at"
_DERIVED = ("num_total_tokens", "pd_ratio")


def _rows(cells: dict[str, Any], where: str) -> Iterator[TraceRow]:
    yield TraceRow(
        time_ns=text_time_ns(_TIME, cells[_TIME], where) if _TIME in cells else None,
        prompt_tokens=text_count(COLUMNS[0], cells[COLUMNS[0]], where, low=1),
        output_tokens=text_count(COLUMNS[1], cells[COLUMNS[1]], where, low=0),
        blocks=None,
    )


_CELLS = Cells(
    header=COLUMNS,
    rows_of=_rows,
    time=_TIME,
    time_ns=plain_seconds,
    prompt=COLUMNS[0],
    output=COLUMNS[1],
)

READER = Reader(
    placed=lambda path: cell_rows(path, COLUMNS, _rows),
    time=_TIME,
    keys=(_TIME, *COLUMNS, *_DERIVED),
    block_tokens=BLOCK_TOKENS,
    pieces=lambda path: pieces_of(path, _CELLS),
)
