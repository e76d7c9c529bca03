"""BurstGPT: what a row becomes, and how an invalid one is reported."""

from pathlib import Path

import pytest
from trace_files import BURSTGPT, load, trace

from experiments.errors import UserError
from experiments.trace_formats import tally
from experiments.trace_formats.formats import TraceFormat, detect_format

MS = 1_000_000
NEWER_BURSTGPT = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
)


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        (BURSTGPT, ["5,ChatGPT,472,18,490,Conversation log", "45,GPT-4,1087,230,1317,API log"]),
        (
            NEWER_BURSTGPT,
            ["5,a,3,ChatGPT,472,18,490,Conversation log", "45.0,b,9,GPT-4,1087,230,1317,API log"],
        ),
    ],
)
def test_columns_of_burstgpt_are_found_by_their_names(tmp_path: Path, header: str, lines: list[str]) -> None:
    path = trace(tmp_path, header, *lines)

    workload = load(path, 2)

    assert detect_format(path) is TraceFormat.BURSTGPT
    first, second = workload.requests
    assert (first.prompt_tokens, first.output_tokens, first.blocks) == (472, 18, ())
    # 1087 tokens are two blocks of 512, which no other prompt has.
    assert (second.arrival_ns, second.blocks) == (40_000 * MS, (0, 1))
    assert tally.NO_REUSE in workload.notes[0]


def test_requests_of_burstgpt_that_failed_are_left_out_and_not_counted(tmp_path: Path) -> None:
    path = trace(
        tmp_path,
        BURSTGPT,
        "1,ChatGPT,0,0,0,API log",
        "2,ChatGPT,30,3,33,API log",
        "4,ChatGPT,40,0,40,API log",
        "7,ChatGPT,50,5,55,API log",
    )

    assert [r.prompt_tokens for r in load(path, 2).requests] == [30, 50]
    with pytest.raises(UserError, match=r"workload\.requests is 3, but the file has 2 rows"):
        load(path, 3)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("9,ChatGPT,1,1,2", "5 values, expected 6"),
        ("soon,ChatGPT,1,1,2,API log", "Timestamp is 'soon', not a number of seconds"),
        ("-1,ChatGPT,1,1,2,API log", "Timestamp is '-1', not a number of seconds"),
        ("99999999999,ChatGPT,1,1,2,API log", "Timestamp is 99999999999; allowed is 0 .."),
        ("9,ChatGPT,0,1,1,API log", "Request tokens is 0; allowed is 1 .."),
        ("9,ChatGPT,1.5,1,2,API log", "Request tokens is '1.5', not a whole number"),
        ("9,ChatGPT,1,-1,2,API log", "Response tokens is -1; allowed is 0 .."),
        ("4,ChatGPT,1,1,2,API log", "Timestamp is earlier than in the row above"),
    ],
)
def test_a_bad_row_of_burstgpt_is_named_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    path = trace(tmp_path, BURSTGPT, "5,ChatGPT,1,1,2,API log", line)

    with pytest.raises(UserError) as caught:
        load(path)

    assert str(caught.value).startswith(f"{path}, line 3: {told}")
