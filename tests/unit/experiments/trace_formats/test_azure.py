"""Azure's traces: what a row becomes, and how an invalid one is reported."""

from pathlib import Path

import pytest
from trace_files import AZURE, load, trace

from experiments.errors import UserError
from experiments.trace_formats import tally
from experiments.trace_formats.formats import TraceFormat


def test_an_azure_row_is_read_to_its_last_digit(tmp_path: Path) -> None:
    """From 46.6805900 s to 50.9951690 s is 4.3145790 s."""
    path = tmp_path / "trace.csv"
    path.write_bytes(
        AZURE.encode() + b"\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,1100,109\r\n"
    )

    first, second = load(path, requests=2).requests

    assert (first.prompt_tokens, first.output_tokens, first.blocks) == (374, 44, ())
    assert (second.prompt_tokens, second.arrival_ns) == (1100, 4_314_579_000)


def test_no_two_azure_prompts_share_a_block_and_a_note_says_so(tmp_path: Path) -> None:
    """1536 tokens are three blocks of 512 each."""
    line = "2023-11-16 18:15:46.5,1536,1"

    workload = load(trace(tmp_path, AZURE, line, line), requests=2)

    assert [request.blocks for request in workload.requests] == [(0, 1, 2), (3, 4, 5)]
    assert workload.notes == (tally.NO_REUSE,)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("2023-11-16 18:15:46.5,10", "2 values, expected 3"),
        ("yesterday,10,1", "TIMESTAMP is 'yesterday'"),
        (
            "1969-12-31 23:59:59,10,1",
            "TIMESTAMP is '1969-12-31 23:59:59'; allowed are the years 1970 to 2254",
        ),
        ("0001-01-01 00:00:00,10,1", "TIMESTAMP is '0001-01-01 00:00:00'; allowed are"),
        ("9999-12-31 23:59:59,10,1", "TIMESTAMP is '9999-12-31 23:59:59'; allowed are"),
        ("2023-13-16 18:15:46,10,1", "TIMESTAMP is '2023-13-16 18:15:46': month must be in 1..12"),
        ("2023-11-16 18:15:46,1.5,1", "ContextTokens is '1.5', not a whole number"),
        ("2023-11-16 18:15:46,0,1", "ContextTokens is 0; allowed is 1 .."),
        ("2023-11-16 18:15:46,10,-1", "GeneratedTokens is -1; allowed is 0 .."),
        ("2023-11-16 18:15:44,10,1", "TIMESTAMP is earlier than in the row above"),
    ],
)
def test_a_bad_azure_row_is_named_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    path = trace(tmp_path, AZURE, "2023-11-16 18:15:45,10,1", line)

    with pytest.raises(UserError) as caught:
        load(path)

    assert str(caught.value).startswith(f"{path}, line 3: {told}")


def test_an_azure_file_without_its_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 1: the header must have TIMESTAMP"):
        load(trace(tmp_path, "2023-11-16 18:15:46,10,1"), format=TraceFormat.AZURE)


def test_a_file_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    path = trace(tmp_path, f"{AZURE},GeneratedTokens", "2023-11-16 18:15:46,10,1,2")
    with pytest.raises(UserError, match="line 1: the column 'GeneratedTokens' is there twice"):
        load(path, format=TraceFormat.AZURE)


def test_times_of_azure_2024_have_a_zone_and_not_always_a_fraction(tmp_path: Path) -> None:
    """From 0.009930 s to 2 s is 1.990070 s."""
    path = trace(
        tmp_path, AZURE, "2024-05-10 00:00:00.009930+00:00,2162,5", "2024-05-10 00:00:02+00:00,2399,6"
    )

    first, second = load(path, 2).requests

    assert (first.prompt_tokens, first.output_tokens) == (2162, 5)
    assert (second.arrival_ns, second.prompt_tokens) == (1_990_070_000, 2399)


def test_times_in_another_zone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 2: TIMESTAMP is '2024-05-10 00:00:00\+02:00'"):
        load(trace(tmp_path, AZURE, "2024-05-10 00:00:00+02:00,10,1"))
