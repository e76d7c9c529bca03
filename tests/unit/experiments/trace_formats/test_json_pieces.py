"""JSON lines that are read in columns have the rows, and the errors, of those that are read row by row."""

import itertools
import json
import random
from pathlib import Path

import pytest

from experiments.errors import UserError
from experiments.trace_formats import pieces
from experiments.trace_formats.formats import detect_format, reader_of
from experiments.trace_formats.rows import RowColumns, TraceRow

Row = tuple[int | None, int, int, tuple[int, ...] | None, str | None]

MANY = 2**63 - 1
OWN = '{"format": "mfs-requests", "version": 1, "block_tokens": 512, "labels": ["type"]}'
SIMULATOR = '{"input_toks": %d, "output_toks": %d, "arrival_time_ns": %d, "note": "not read"}'
MOONCAKE = '{"timestamp": %d, "input_length": %d, "output_length": %d}'


def own(time: object, prompt: object = 7, output: object = 5, **more: object) -> str:
    return json.dumps({"arrival_ns": time, "prompt_tokens": prompt, "output_tokens": output, **more})


def ids(prompt: object, ids: object, time: object = 0) -> str:
    return json.dumps({"timestamp": time, "input_length": prompt, "output_length": 5, "hash_ids": ids})


def one_by_one(path: Path) -> list[Row] | str:
    try:
        return [_row(row) for row in reader_of(path, detect_format(path)).rows(path)]
    except UserError as error:
        return str(error)


def in_columns(path: Path) -> tuple[list[Row] | str, int]:
    """The rows, or the error, and how many rows came in columns."""
    found: list[Row] = []
    together = 0
    try:
        for part in reader_of(path, detect_format(path)).in_columns(path):
            if isinstance(part, RowColumns):
                columns = (part.time_ns, part.prompt_tokens, part.output_tokens)
                rows = zip(*(c.tolist() for c in columns), blocks_of(part), strict=True)
                found += [(*row, None) for row in rows]
                together += part.count
            else:
                found.append(_row(part))
    except UserError as error:
        return str(error), together
    return found, together


def blocks_of(part: RowColumns) -> list[tuple[int, ...] | None]:
    if part.blocks is None or part.starts is None:
        return [None] * part.count
    return [tuple(part.blocks[begin:end].tolist()) for begin, end in itertools.pairwise(part.starts)]


def _row(row: TraceRow) -> Row:
    return row.time_ns, row.prompt_tokens, row.output_tokens, row.blocks, row.session


def file(folder: Path, *lines: str, end: str = "\n") -> Path:
    path = folder / "trace.jsonl"
    path.write_bytes((end.join(lines) + end).encode())
    return path


@pytest.mark.parametrize(
    ("lines", "first"),
    [
        ([OWN, own(0), own(2**40, 16_777_216, 0)], (0, 7, 5, None, None)),
        ([SIMULATOR % (1472, 133, 4059740), SIMULATOR % (1, 0, 4059740)], (4059740, 1472, 133, None, None)),
        ([MOONCAKE % (3, 9, 4), MOONCAKE % (5, 9, 0)], (3_000_000, 9, 4, None, None)),
        ([MOONCAKE[:-1] % (3, 9, 4) + ', "x": "y"}', MOONCAKE % (5, 9, 0)], (3_000_000, 9, 4, None, None)),
        ([OWN, own(8) + " ", "  " + own(9)], (8, 7, 5, None, None)),
        ([OWN, own(0, 1030, blocks=[MANY, 0]), own(1, blocks=[])], (0, 1030, 5, (MANY, 0), None)),
        # A last block that is not full has an id, too: the third of the first row, and the only one of the
        # second.
        (
            [ids(1025, [7, 8, 9]), ids(1, [3]), ids(1024, [7, 3]).replace(": [", ":[")],
            (0, 1025, 5, (7, 8), None),
        ),
    ],
)
def test_flat_objects_come_in_columns(tmp_path: Path, lines: list[str], first: Row) -> None:
    path = file(tmp_path, *lines)
    found, together = in_columns(path)
    assert found == one_by_one(path)
    assert (found[0], together) == (first, len(found))


ODD = (
    own(9, 7.0),
    own(9, blocks=[]),
    own(9, 600, blocks=[1]),
    own(9, session="a"),
    own(9, labels={"type": "x"}),
    own(9, pause_ns=0),
    own(9, guessed=["output"]),
    own(9.0),
    own(9, True),
    own(9, "7"),
    own(9, 0),
    own(9, -1),
    own(9, 2**70),
    own(-1),
    own(None),
    own(9, other=1),
    '{"arrival_ns": 9, "prompt_tokens": 1, "prompt_tokens": 8, "output_tokens": 5}',
    '{"arrival_ns": 9, "prompt_tokens": 1e2, "output_tokens": 5}',
    '{"arrival_ns": 9, "prompt_tokens": 007, "output_tokens": 5}',
    '{"arrival_ns": 9, "prompt_tokens": NaN, "output_tokens": 5}',
    '{"arrival_ns": 9, "prompt_tokens": 7, "output_tokens": 5,}',
    '{"arrival_ns": 9, "prompt\\u005ftokens": 7, "output_tokens": 5}',
    '{"arrival_ns": 9, "prompt_tokens": 7}',
    own(9) + own(9),
    own(9) + " 5",
    own(9) + ",",
    "5 " + own(9),
    "," + own(9),
    '{"arrival_ns": 9, "prompt_tokens": 7 "output_tokens": 5}',
    '{"arrival_ns": 9, "prompt_tokens": 7 0, "output_tokens": 5}',
    '{"arrival_ns": 9, "prompt_tokens": ,7, "output_tokens": 5}',
    '{"arrival_ns": 9, "prompt_tokens2": 7, "output_tokens": 5}',
    '{"arrival_ns": 9, "prompt_tokens": 7, "prompt_tokens2": 7, "output_tokens": 5}',
    own(9, 600, **{"blocks 2": [1]}),
    own(9)[:-1],
    '{"arrival_ns": 9,\n"prompt_tokens": 7, "output_tokens": 5}',
    "",
    "   ",
    "[]",
    "7",
)
"""Lines that only the reader of single rows can read, or refuse."""


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_odd_lines_are_read_or_refused_as_they_are_row_by_row(tmp_path: Path, odd: str, end: str) -> None:
    path = file(tmp_path, OWN, own(8), odd, own(10), end=end)
    found, together = in_columns(path)
    assert found == one_by_one(path)
    assert together == 0 or found == [(8, 7, 5, None, None), (10, 7, 5, None, None)]


@pytest.mark.parametrize("seed", range(40))
def test_any_mixture_of_lines_is_read_as_it_is_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(pieces, "PIECE_BYTES", draw.choice([60, 200, 1000]))
    lines = [own(i, draw.randint(1, 999), draw.randint(0, 9)) for i in range(30)]
    for _ in range(draw.randint(0, 3)):
        lines.insert(draw.randint(0, 30), draw.choice(ODD).replace("9", str(draw.randint(0, 30)), 1))
    path = file(tmp_path, OWN, *lines)

    assert in_columns(path)[0] == one_by_one(path)


@pytest.mark.parametrize(
    "line",
    [
        '{"input_toks": 2, "output_toks": 1, "arrival_time_ns": 9, "input_tok_ids": [1, 2]}',
        '{"session_id": "s", "arrival_time_ns": 9, "sub_requests": [{"input_toks": 4, "output_toks": 1}]}',
        '{"input_toks": 2, "output_toks": 1, "arrival_time_ns": 9, "input_tok_ids": null}',
        '{"input_toks": 2, "output_toks": 1, "arrival_time_ns": 9, "sub_requests": null}',
        '{"input_toks": 2, "output_toks": 1, "arrival_time_ns": 9, "x": "}{"}',
        '{"input_toks": 2, "output_toks": 1, "arrival_time_ns": 9, "x": NaN}',
        '{"input_toks": 2, "output_toks": 1, "arrival_time_ns": 9, "x": Inf}',
        '{"input_toks": 2, "output_toks": 1, "arrival_time_ns": 9, "x": 1, "x" : 2}',
        '{"input_toks": 2, "output_toks": 1, "arrival_time_ns": 9, "x": "\u00e4"}',
    ],
)
def test_what_makes_more_of_a_row_is_not_read_in_columns(tmp_path: Path, line: str) -> None:
    path = file(tmp_path, SIMULATOR % (8, 1, 1), line)
    found, together = in_columns(path)
    assert found == one_by_one(path)
    assert together == 0


@pytest.mark.parametrize(
    "odd",
    [
        ids(1025, [7, 8]),
        ids(1024, [7, 8, 9]),
        ids(1024, [7, -8]),
        ids(1024, [7, 2**63]),
        ids(1024, [7, 8.0]),
        ids(1024, [7, None]),
        ids(1024, [7, True]),
        ids(1024, [7, "8"]),
        ids(1024, [[7], 8]),
        ids(1024, []),
        ids(1024, None),
        ids(1024, {"0": 7, "1": 8}),
        ids(7.0, [7]),
        ids(1024, [7, 8])[:-1] + ', "session_id": 4}',
        ids(1024, [7, 8])[:-1] + ', "delay": 4}',
        ids(1024, [7, 8])[:-1] + ', "wait_for": 4}',
        ids(1024, [7, 8])[:-1] + ', "input_tokens": 4}',
        ids(1024, [7, 8])[:-1] + ', "x": [1]}',
        ids(1024, [7, 8])[:-1] + ', "hash_ids": [1, 2]}',
        MOONCAKE % (0, 1024, 5),
    ],
)
def test_odd_ids_are_read_or_refused_as_they_are_row_by_row(tmp_path: Path, odd: str) -> None:
    path = file(tmp_path, ids(1024, [1, 2]), odd, ids(600, [1, 3]))
    found, together = in_columns(path)
    assert found == one_by_one(path)
    assert together == 0


@pytest.mark.parametrize("seed", range(20))
def test_any_mixture_of_rows_with_and_without_ids_is_read_as_it_is_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(pieces, "PIECE_BYTES", draw.choice([60, 200, 1000]))
    lines = []
    for i in range(30):
        prompt = draw.randint(1, 1600)
        numbers = [draw.randint(0, 9) for _ in range(-(-prompt // 512))]
        lines.append(ids(prompt, numbers, i) if draw.random() < 0.8 else MOONCAKE % (i, prompt, 5))
    path = file(tmp_path, *lines)

    assert in_columns(path)[0] == one_by_one(path)


def test_a_mark_of_utf_8_before_the_first_line_does_not_matter(tmp_path: Path) -> None:
    path = file(tmp_path, "\ufeff" + SIMULATOR % (8, 1, 1), SIMULATOR % (9, 1, 2))
    assert in_columns(path)[0] == one_by_one(path) == [(1, 8, 1, None, None), (2, 9, 1, None, None)]
