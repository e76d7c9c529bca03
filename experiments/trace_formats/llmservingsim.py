"""The formats of LLMServingSim (https://github.com/casys-kaist/LLMServingSim).

JSON lines. A line is a request, or a session of requests, each of which is sent `tool_duration_ns` after
the answer to the one before:

    {"input_toks": 1472, "output_toks": 133, "arrival_time_ns": 4059740, "input_tok_ids": [...]}
    {"session_id": "s0", "arrival_time_ns": 4059740, "sub_requests":
        [{"input_toks": 1472, "output_toks": 133, "tool_duration_ns": 127348767}, ...]}

`input_toks` is the whole prompt. Prompts share their first blocks of 16 tokens, the program's own default,
if `input_tok_ids` begin alike. Older files are TSV with the first three columns.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.trace_formats.bailian import PrefixIds
from experiments.trace_formats.json_pieces import Keys, json_pieces
from experiments.trace_formats.lines import cell_rows, json_rows
from experiments.trace_formats.pieces import Cells, pieces_of, plain_ns
from experiments.trace_formats.rows import Piece, PlacedRow, Reader, TraceRow
from experiments.trace_formats.text_file import lines_of
from experiments.trace_formats.values import json_count, json_time_ns, json_value, text_count, text_time_ns

BLOCK_TOKENS = 16
COLUMNS = ("input_toks", "output_toks", "arrival_time_ns")
SESSION = "sub_requests"
_TOKENS = "input_tok_ids"


class _Rows:
    def __init__(self) -> None:
        self._prefixes = PrefixIds()
        self._sessions: set[str] = set()

    def rows(self, data: dict[str, Any], where: str) -> Iterator[TraceRow]:
        time_ns = json_time_ns(data, "arrival_time_ns", where, unit_ns=1)
        if SESSION not in data:
            yield self._row(data, where, time_ns=time_ns)
            return
        calls = data[SESSION]
        if not isinstance(calls, list) or not calls or not all(isinstance(call, dict) for call in calls):
            raise UserError(f"{where}: {SESSION} is not a list of one or more JSON objects")
        session = str(json_value(data, "session_id", where))
        if session in self._sessions:
            raise UserError(f"{where}: session_id {session} is listed twice")
        self._sessions.add(session)
        pause_ns = 0
        for number, call in enumerate(calls):
            at = f"{where}: {SESSION}[{number}]"
            first_ns = None if number else time_ns
            yield self._row(call, at, time_ns=first_ns, session=session, pause_ns=pause_ns)
            pause_ns = 0
            if "tool_duration_ns" in call:
                pause_ns = json_time_ns(call, "tool_duration_ns", at, unit_ns=1)

    def _row(
        self,
        data: dict[str, Any],
        where: str,
        *,
        time_ns: int | None,
        session: str | None = None,
        pause_ns: int = 0,
    ) -> TraceRow:
        tokens = json_count(data, "input_toks", where, low=1)
        return TraceRow(
            time_ns=time_ns,
            prompt_tokens=tokens,
            output_tokens=json_count(data, "output_toks", where, low=0),
            blocks=None if data.get(_TOKENS) is None else self._blocks(data[_TOKENS], tokens, where),
            session=session,
            pause_ns=pause_ns,
        )

    def _blocks(self, ids: object, tokens: int, where: str) -> tuple[int, ...]:
        if not isinstance(ids, list) or not all(type(one) is int for one in ids):
            raise UserError(f"{where}: {_TOKENS} is not a list of whole numbers")
        if len(ids) != tokens:
            raise UserError(f"{where}: {len(ids)} {_TOKENS} for input_toks {tokens}")
        full = tokens // BLOCK_TOKENS
        return self._prefixes.chain(
            tuple(ids[i * BLOCK_TOKENS : (i + 1) * BLOCK_TOKENS]) for i in range(full)
        )


def _cells(cells: dict[str, Any], where: str) -> Iterator[TraceRow]:
    yield TraceRow(
        time_ns=text_time_ns("arrival_time_ns", cells["arrival_time_ns"], where, unit_ns=1),
        prompt_tokens=text_count("input_toks", cells["input_toks"], where, low=1),
        output_tokens=text_count("output_toks", cells["output_toks"], where, low=0),
        blocks=None,
    )


_KEYS = Keys(time=COLUMNS[2], prompt=COLUMNS[0], output=COLUMNS[1], single=(SESSION, _TOKENS), others=True)
_CELLS = Cells(
    header=COLUMNS,
    rows_of=_cells,
    time=COLUMNS[2],
    time_ns=plain_ns,
    prompt=COLUMNS[0],
    output=COLUMNS[1],
)


def _is_json(path: Path) -> bool:
    return next(line for line in lines_of(path) if line.strip()).lstrip().startswith("{")


def _placed(path: Path) -> Iterator[PlacedRow]:
    return json_rows(path, _Rows().rows) if _is_json(path) else cell_rows(path, COLUMNS, _cells)


def _pieces(path: Path) -> Iterator[Piece]:
    return json_pieces(path, _KEYS, _Rows().rows) if _is_json(path) else pieces_of(path, _CELLS)


READER = Reader(
    placed=_placed,
    time="arrival_time_ns",
    keys=(*COLUMNS, SESSION, "session_id", _TOKENS, "output_tok_ids", "output_tokens_ids"),
    block_tokens=BLOCK_TOKENS,
    pieces=_pieces,
)
