"""Loading traces: what a row becomes, and how a bad one is named."""

import json
from pathlib import Path

import pytest

from experiments.errors import UserError
from experiments.trace_formats import azure, ticks
from experiments.trace_formats.trace_file import TraceFormat, detect_format
from experiments.workloads import from_trace as traces
from experiments.workloads.workload import Workload

SHARED = Path(__file__).parents[5] / "shared" / "traces"
MS = 1_000_000


def row(timestamp: object = 0, tokens: object = 1000, output: object = 5, ids: object = (0, 1)) -> str:
    ids = list(ids) if isinstance(ids, tuple) else ids
    return json.dumps(
        {"timestamp": timestamp, "input_length": tokens, "output_length": output, "hash_ids": ids}
    )


def trace(folder: Path, *lines: str) -> Path:
    path = folder / "trace.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def load(path: Path, requests: int = 1, skip: int = 0, spread: bool = True, seed: int = 1) -> Workload:
    return traces.load(
        path, TraceFormat.MOONCAKE, requests=requests, skip=skip, spread_ticks=spread, seed=seed
    )


def load_azure(path: Path, requests: int = 1, skip: int = 0) -> Workload:
    return traces.load(path, TraceFormat.AZURE, requests=requests, skip=skip)


def test_a_mooncake_row_keeps_its_full_blocks_only(tmp_path: Path) -> None:
    """1000 tokens are one block of 512 and a part of a second: ceil gives 2 ids, floor 1 block."""
    request = load(trace(tmp_path, row(tokens=1000, ids=(7, 8)))).requests[0]

    assert (request.prompt_tokens, request.output_tokens) == (1000, 5)
    assert (request.blocks, request.block_tokens) == ((7,), 512)


def test_a_prompt_that_ends_with_its_block_keeps_them_all(tmp_path: Path) -> None:
    request = load(trace(tmp_path, row(tokens=1024, ids=(7, 8)))).requests[0]

    assert request.blocks == (7, 8)


def test_the_first_row_that_is_taken_arrives_at_zero(tmp_path: Path) -> None:
    path = trace(tmp_path, row(100), row(250), row(450))

    workload = load(path, requests=2, skip=1)

    assert [request.arrival_ns for request in workload.requests] == [0, 200 * MS]
    assert [request.id for request in workload.requests] == [0, 1]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"timestamp": 9}', "input_length is missing"),
        (row(timestamp=-1), "timestamp is -1; allowed is 0 .."),
        (row(timestamp=1.5), "timestamp is 1.5, not a whole number"),
        (row(tokens="many"), "input_length is 'many', not a whole number"),
        (row(tokens=True), "input_length is True, not a whole number"),
        (row(tokens=0), "input_length is 0; allowed is 1 .."),
        (row(output=-3), "output_length is -3; allowed is 0 .."),
        (row(ids="01"), "hash_ids is not a list of whole numbers"),
        (row(ids=(0, -1)), "hash_ids is not a list of whole numbers"),
        (row(ids=(0,)), "1 hash_ids for input_length 1000; 2 blocks of 512 tokens were expected"),
        (row(timestamp=3), "timestamp is before that of the row above"),
    ],
)
def test_a_bad_mooncake_row_is_named_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    path = trace(tmp_path, row(timestamp=5), "", line)

    with pytest.raises(UserError) as caught:
        load(path)

    assert str(caught.value).startswith(f"{path}, line 3: {told}")


def test_a_trace_with_too_few_rows_says_how_many_there_are(tmp_path: Path) -> None:
    path = trace(tmp_path, row(0), row(1), row(2))

    with pytest.raises(UserError, match="asks for 3 rows after skipping 1, but the file has 3"):
        load(path, requests=3, skip=1)


def test_files_that_are_no_trace_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    for name, told in (
        ("empty", "is empty"),
        ("binary", "not a text file"),
        ("nowhere", "there is no such trace file"),
        (".", "is a directory"),
    ):
        with pytest.raises(UserError, match=told):
            detect_format(tmp_path / name)


def test_the_format_is_seen_in_the_first_line(tmp_path: Path) -> None:
    assert detect_format(trace(tmp_path, row())) is TraceFormat.MOONCAKE
    assert detect_format(trace(tmp_path, azure_header())) is TraceFormat.AZURE


def azure_header() -> str:
    return "TIMESTAMP,ContextTokens,GeneratedTokens"


def test_an_azure_row_is_read_to_its_last_digit(tmp_path: Path) -> None:
    """From 46.6805900 s to 50.9951690 s are 4.3145790 s."""
    path = tmp_path / "trace.csv"
    path.write_bytes(
        azure_header().encode()
        + b"\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,1100,109\r\n"
    )

    first, second = load_azure(path, requests=2).requests

    assert (first.prompt_tokens, first.output_tokens, first.blocks) == (374, 44, ())
    assert (second.prompt_tokens, second.arrival_ns) == (1100, 4_314_579_000)


def test_no_two_azure_prompts_share_a_block_and_a_note_says_so(tmp_path: Path) -> None:
    """1536 tokens are three blocks of 512 each."""
    line = "2023-11-16 18:15:46.5,1536,1"

    workload = load_azure(trace(tmp_path, azure_header(), line, line), requests=2)

    assert [request.blocks for request in workload.requests] == [(0, 1, 2), (3, 4, 5)]
    assert workload.notes == (azure.NO_REUSE,)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("2023-11-16 18:15:46.5,10", "2 values, expected 3"),
        ("yesterday,10,1", "TIMESTAMP is 'yesterday'"),
        ("2023-13-16 18:15:46,10,1", "TIMESTAMP is '2023-13-16 18:15:46': month must be in 1..12"),
        ("2023-11-16 18:15:46,1.5,1", "ContextTokens is '1.5', not a whole number"),
        ("2023-11-16 18:15:46,0,1", "ContextTokens is 0; allowed is 1 .."),
        ("2023-11-16 18:15:46,10,-1", "GeneratedTokens is -1; allowed is 0 .."),
        ("2023-11-16 18:15:44,10,1", "TIMESTAMP is before that of the row above"),
    ],
)
def test_a_bad_azure_row_is_named_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    path = trace(tmp_path, azure_header(), "2023-11-16 18:15:45,10,1", line)

    with pytest.raises(UserError) as caught:
        load_azure(path)

    assert str(caught.value).startswith(f"{path}, line 3: {told}")


def test_an_azure_file_without_its_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 1: the header must be TIMESTAMP"):
        load_azure(trace(tmp_path, "2023-11-16 18:15:46,10,1"))


def test_shared_stamps_on_a_grid_are_a_tick_despite_jitter() -> None:
    """Stamps 0, 3000, 5999, 9000 (twice each): gaps 3000, 2999, 3001, so the tick is 3000."""
    assert ticks.tick_of([0, 0, 3000, 3000, 5999, 5999, 9000, 9000]) == 3000


def test_a_grid_with_holes_is_still_a_grid() -> None:
    """Gaps 3, 3, 6, 3: the third is two ticks."""
    assert ticks.tick_of([t * 1000 for t in (0, 0, 3, 3, 6, 6, 12, 12, 15, 15)]) == 3000


def test_stamps_nobody_shares_are_no_tick() -> None:
    assert ticks.tick_of([0, 3000, 6000, 9000]) is None


def test_stamps_without_a_grid_are_no_tick() -> None:
    assert ticks.tick_of([0, 0, 100, 100, 1700, 1700, 1950, 1950]) is None


def test_arrivals_of_one_tick_get_one_share_of_it_each() -> None:
    """Three in a tick of 3000: one in each of [0, 1000), [1000, 2000), [2000, 3000)."""
    spread = ticks.spread([0, 0, 0, 3000, 3000, 3000], 3000, seed=4)

    assert [arrival // 1000 for arrival in spread] == [0, 1, 2, 3, 4, 5]


def test_a_stamp_that_comes_early_shortens_the_tick_before_it() -> None:
    spread = ticks.spread([0] * 50 + [2500], 3000, seed=1)

    assert max(spread[:50]) < 2500
    assert spread == sorted(spread)


def test_the_spread_of_a_tick_follows_the_seed() -> None:
    arrivals = [0, 0, 3000, 3000]

    assert ticks.spread(arrivals, 3000, seed=1) == ticks.spread(arrivals, 3000, seed=1)
    assert ticks.spread(arrivals, 3000, seed=1) != ticks.spread(arrivals, 3000, seed=2)


def test_a_row_arrives_at_the_same_time_whatever_is_taken_around_it(tmp_path: Path) -> None:
    path = trace(tmp_path, *[row(t * 3000) for t in (0, 0, 1, 1, 2, 2)])

    all_of_them = load(path, requests=6).requests
    some = load(path, requests=3, skip=2).requests

    gaps = [request.arrival_ns - all_of_them[2].arrival_ns for request in all_of_them[2:5]]
    assert [request.arrival_ns for request in some] == gaps


def test_a_coarse_clock_is_told_in_a_note_when_its_ticks_are_spread(tmp_path: Path) -> None:
    path = trace(tmp_path, *[row(t * 3000) for t in (0, 0, 1, 1, 2, 2)])

    assert load(path, requests=6).notes == ("arrivals spread inside the trace's 3.0 s tick",)
    as_stamped = load(path, requests=6, spread=False)
    assert as_stamped.notes == ()
    assert [r.arrival_ns // (3000 * MS) for r in as_stamped.requests] == [0, 0, 1, 1, 2, 2]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published traces are not here")
def test_the_real_mooncake_rows_load_and_are_spread() -> None:
    path = SHARED / "mooncake-conversation" / "conversation_trace.jsonl"

    workload = load(path, requests=6000)

    arrivals = [request.arrival_ns for request in workload.requests]
    assert workload.notes == ("arrivals spread inside the trace's 3.0 s tick",)
    assert arrivals == sorted(arrivals)
    assert len(set(arrivals)) == len(arrivals)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published traces are not here")
def test_the_real_rows_of_the_other_traces_load() -> None:
    poisson = load(SHARED / "mooncake-synthetic" / "synthetic_trace.jsonl", requests=1996)
    conversation = load_azure(SHARED / "azure2023-conv" / "AzureLLMInferenceTrace_conv.csv", requests=9683)

    assert poisson.notes == ()
    assert conversation.requests[0].prompt_tokens == 374
