"""The rows that a run takes from a trace, and their arrival times."""

from pathlib import Path

import pytest
from trace_files import load, mooncake, trace

from experiments.errors import UserError

SHARED = Path(__file__).parents[5] / "shared" / "traces"
MS = 1_000_000


def test_the_first_row_that_is_taken_arrives_at_zero(tmp_path: Path) -> None:
    path = trace(tmp_path, mooncake(100), mooncake(250), mooncake(450))

    workload = load(path, requests=2, skip=1)

    assert [request.arrival_ns for request in workload.requests] == [0, 200 * MS]
    assert [request.id for request in workload.requests] == [0, 1]


def test_a_trace_with_too_few_rows_says_how_many_there_are(tmp_path: Path) -> None:
    path = trace(tmp_path, mooncake(0), mooncake(1), mooncake(2))

    with pytest.raises(UserError) as refusal:
        load(path, requests=3, skip=1)
    assert str(refusal.value) == (
        f"{path}: workload.requests is 3 after workload.skip, 1, but the file has 3 rows; "
        "workload.requests=2 takes all"
    )
    with pytest.raises(UserError, match=r"after workload\.skip, 7, but the file has 3 rows$"):
        load(path, requests=1, skip=7)


def test_a_row_arrives_at_the_same_time_whatever_is_taken_around_it(tmp_path: Path) -> None:
    path = trace(tmp_path, *[mooncake(t * 3000) for t in (0, 0, 1, 1, 2, 2)])

    all_of_them = load(path, requests=6).requests
    some = load(path, requests=3, skip=2).requests

    gaps = [request.arrival_ns - all_of_them[2].arrival_ns for request in all_of_them[2:5]]
    assert [request.arrival_ns for request in some] == gaps


def test_a_coarse_clock_is_told_in_a_note_when_its_ticks_are_spread(tmp_path: Path) -> None:
    path = trace(tmp_path, *[mooncake(t * 3000) for t in (0, 0, 1, 1, 2, 2)])

    told = "inside the trace's 3.0 s tick (as stamped, 100% of the arrivals share their moment with another)"
    assert load(path, requests=6).notes == (f"arrivals spread {told}",)
    as_stamped = load(path, requests=6, spread_ticks=False)
    assert as_stamped.notes == (f"arrivals not spread {told}",)
    assert [r.arrival_ns // (3000 * MS) for r in as_stamped.requests] == [0, 0, 1, 1, 2, 2]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published traces are not here")
def test_the_real_mooncake_rows_load_and_are_spread() -> None:
    path = SHARED / "mooncake-conversation" / "conversation_trace.jsonl"

    workload = load(path, requests=6000)

    arrivals = [request.arrival_ns for request in workload.requests]
    assert workload.notes[0].startswith("arrivals spread inside the trace's 3.0 s tick (as stamped, ")
    assert arrivals == sorted(arrivals)
    assert len(set(arrivals)) == len(arrivals)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published traces are not here")
def test_the_real_rows_of_the_other_traces_load() -> None:
    poisson = load(SHARED / "mooncake-synthetic" / "synthetic_trace.jsonl", requests=1996)
    conversation = load(SHARED / "azure2023-conv" / "AzureLLMInferenceTrace_conv.csv", requests=9683)

    assert poisson.notes == ()
    assert conversation.requests[0].prompt_tokens == 374
