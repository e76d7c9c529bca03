"""The format of splitwise-sim (https://github.com/Mutinifni/splitwise-sim): one CSV row per request.

    request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size

`arrival_timestamp` is in seconds, and `token_size` is the length of the answer. Type 2 is a request to a
language model. The traces that the program makes have a batch size of 1; what another one would mean for
the lengths is not written down.
"""

from collections.abc import Iterator
from typing import Any

from experiments.errors import UserError
from experiments.trace_formats.lines import cell_rows
from experiments.trace_formats.pieces import Cells, pieces_of, plain_seconds
from experiments.trace_formats.rows import BLOCK_TOKENS, Reader, TraceRow
from experiments.trace_formats.values import text_count, text_time_ns

COLUMNS = ("arrival_timestamp", "prompt_size", "token_size")
"""What a row has to have. The columns below are optional."""

LABELS = ("application_id",)
_ONLY = {"request_type": "2", "batch_size": "1"}


def _rows(cells: dict[str, Any], where: str) -> Iterator[TraceRow]:
    for name, value in _ONLY.items():
        if cells.get(name, value) != value:
            raise UserError(f"{where}: {name} is {cells[name]}; only {value} is modelled")
    yield TraceRow(
        time_ns=text_time_ns("arrival_timestamp", cells["arrival_timestamp"], where),
        prompt_tokens=text_count("prompt_size", cells["prompt_size"], where, low=1),
        output_tokens=text_count("token_size", cells["token_size"], where, low=0),
        blocks=None,
        labels={name: cells[name] for name in LABELS if name in cells},
    )


_CELLS = Cells(
    header=COLUMNS,
    rows_of=_rows,
    time=COLUMNS[0],
    time_ns=plain_seconds,
    prompt=COLUMNS[1],
    output=COLUMNS[2],
    only=_ONLY,
)

READER = Reader(
    placed=lambda path: cell_rows(path, COLUMNS, _rows),
    time="arrival_timestamp",
    keys=("request_id", *_ONLY, *COLUMNS),
    block_tokens=BLOCK_TOKENS,
    labels=LABELS,
    pieces=lambda path: pieces_of(path, _CELLS),
)
