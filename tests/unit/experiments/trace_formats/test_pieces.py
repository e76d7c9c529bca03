"""A trace that is read in columns has the rows, and the errors, of one that is read row by row."""

import random
from pathlib import Path

import pytest
from trace_files import AZURE, BURSTGPT

from experiments.errors import UserError
from experiments.trace_formats import pieces
from experiments.trace_formats.formats import detect_format, reader_of
from experiments.trace_formats.rows import RowColumns, TraceRow

SPLITWISE = "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size"
SIMULATOR = "input_toks\toutput_toks\tarrival_time_ns"
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens"
Rows = list[tuple[int | None, int, int]]


def one_by_one(path: Path) -> Rows | str:
    try:
        return [_row(row) for row in reader_of(path, detect_format(path)).rows(path)]
    except UserError as error:
        return str(error)


def in_columns(path: Path, single: range | None = None) -> tuple[Rows | str, int]:
    """The rows, or the error, and how many rows came in columns."""
    found: Rows = []
    together = 0
    try:
        for part in reader_of(path, detect_format(path)).in_columns(path, single=single):
            if isinstance(part, RowColumns):
                columns = (part.time_ns, part.prompt_tokens, part.output_tokens)
                found += zip(*(column.tolist() for column in columns), strict=True)
                together += part.count
            else:
                found.append(_row(part))
    except UserError as error:
        return str(error), together
    return found, together


def _row(row: TraceRow) -> tuple[int | None, int, int]:
    return row.time_ns, row.prompt_tokens, row.output_tokens


def file(folder: Path, text: str | bytes) -> Path:
    path = folder / "trace.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


PLAIN = {
    AZURE: ["2024-05-10 00:00:00.009930+00:00,2162,5", "2024-05-10 00:00:01+00:00,1,0"],
    BURSTGPT: [
        "5,ChatGPT,472,18,490,Conversation log",
        "45.25,GPT-4,0,0,0,API log",
        "118,GPT-4,7,1,8,API log",
    ],
    SPLITWISE: ["0,2,0,0.5,1,1021,3", "1,2,7,0.75,1,12,0"],
    SIMULATOR: ["1472\t133\t4059740", "15\t0\t4059741"],
    VIDUR: ["0.0,4,5", "0.1234567890123456,0012,3", "3,16777216,0"],
}


@pytest.mark.parametrize("header", PLAIN)
def test_plain_rows_come_in_columns(tmp_path: Path, header: str) -> None:
    path = file(tmp_path, "\n".join([header, *PLAIN[header]]) + "\n")

    found, together = in_columns(path)

    assert found == one_by_one(path)
    assert together == len(found) == 2 + (header == VIDUR)


def test_values_are_read_to_the_nanosecond(tmp_path: Path) -> None:
    """2024-05-10 is day 19,853 since 1970. Seconds are cut off after nine decimals."""
    midnight_ns = 19_853 * 86_400 * 10**9
    azure = file(tmp_path, f"{AZURE}\n2024-05-10T00:00:00.000000001Z,3,4\n")
    assert in_columns(azure) == ([(midnight_ns + 1, 3, 4)], 1)

    vidur = file(tmp_path, f"{VIDUR}\n1.2345678909999,3,4")
    assert in_columns(vidur) == ([(1_234_567_890, 3, 4)], 1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2024-05-10 00:00:09+00:00,0x10,5", "line 4: ContextTokens is '0x10', not a whole number"),
        ("2024-05-10 00:00:09+00:00,0,5", "line 4: ContextTokens is 0; allowed is 1 .. 16777216"),
        ("2024-05-10 00:00:09+00:00,16777217,5", "line 4: ContextTokens is 16777217"),
        ("2024-05-10 00:00:09+00:00,5", "line 4: 2 values, expected 3"),
        ('2024-05-10 00:00:09+00:00,5",5', "line 4: ContextTokens is '5\"'"),
        ("2024-05-10 00:00:09+02:00,5,5", "line 4: TIMESTAMP is '2024-05-10 00:00:09+02:00'"),
        ("2024-02-30 00:00:09+00:00,5,5", "line 4: TIMESTAMP is '2024-02-30 00:00:09+00:00': day is out of"),
        ("2024-05-09 00:00:09+00:00,5,5", "line 4: TIMESTAMP is earlier than in the row above"),
        (",5,5", "line 4: TIMESTAMP is ''"),
        ("2024-05-10 00:00:09+00:00,5,NaN", "line 4: GeneratedTokens is 'NaN'"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [8 << 20, 90, 10])
def test_a_bad_value_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str, piece_bytes: int
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", piece_bytes)
    path = file(tmp_path, "\n".join([AZURE, *PLAIN[AZURE], line, "2024-05-11 00:00:00+00:00,1,1"]) + "\n")

    found, _ = in_columns(path)

    assert isinstance(found, str)
    assert f"{path}, {said}" in found


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("tail", ["", "\n\n  \n"])
def test_ends_of_lines_and_blank_lines_do_not_matter(tmp_path: Path, end: str, tail: str) -> None:
    path = file(tmp_path, end.join([AZURE, *PLAIN[AZURE]]) + tail.replace("\n", end))

    assert in_columns(path)[0] == one_by_one(path)
    assert len(in_columns(path)[0]) == 2


def test_a_file_that_is_not_text_is_refused_where_only_unread_columns_show_it(tmp_path: Path) -> None:
    rows = "\n".join([BURSTGPT, *PLAIN[BURSTGPT]])
    path = file(tmp_path, rows.encode() + b"\n120,\xff,472,18,490,API log\n")

    assert in_columns(path)[0] == f"{path}: not a text file (UTF-8), so not a trace"


def test_rows_that_are_wanted_one_by_one_come_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of eight bytes make a piece. Row 4 is in the third one."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 12)
    path = file(tmp_path, VIDUR + "\n" + "".join(f"{i}.5,4,5\n" for i in range(9)))

    assert in_columns(path, range(4, 5)) == (one_by_one(path), 7)
    assert in_columns(path, range(4, 4))[1] == 9


ODD_LINES = (
    "",
    "   ",
    " 7 , 5\t,6",
    "1e1,4,5",
    "+3,+4,5",
    "1,4,5,6",
    "1,4.0,5",
    "9,-4,5",
    "2\t3\t4",
    "x,1,1",
)


@pytest.mark.parametrize("seed", range(60))
def test_any_mixture_of_lines_is_read_as_it_is_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(pieces, "PIECE_BYTES", draw.choice([7, 30, 100]))
    lines = [f"{i}.{draw.randint(0, 10 ** draw.randint(1, 12))},{draw.randint(1, 999)},5" for i in range(30)]
    for _ in range(draw.randint(0, 3)):
        lines.insert(draw.randint(0, 30), draw.choice(ODD_LINES))
    path = file(tmp_path, "\n".join([VIDUR, *lines]) + draw.choice(["", "\n"]))

    assert in_columns(path)[0] == one_by_one(path)


def test_rows_that_are_not_modelled_are_refused_by_their_column(tmp_path: Path) -> None:
    path = file(tmp_path, "\n".join([SPLITWISE, *PLAIN[SPLITWISE], "2,1,0,0.9,1,5,5"]) + "\n")
    assert in_columns(path)[0] == one_by_one(path) == f"{path}, line 4: request_type is 1; only 2 is modelled"
