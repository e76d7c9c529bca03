"""Arrival times: stretched from a trace, or random."""

import itertools
import json
import statistics
from pathlib import Path

import numpy as np
import pytest
from burstiness import index_of_dispersion

from experiments.errors import UserError
from experiments.resolve.capacity import Capacity
from experiments.scenario.workload import WorkloadSection
from experiments.traces.columns import dispersion
from experiments.workloads import arrivals
from experiments.workloads.source import make_workload
from experiments.workloads.workload import Workload
from testbed.job import Request

S = 1_000_000_000


def workload(*arrivals_s: float, bursts: tuple[int, ...] = ()) -> Workload:
    return Workload(
        requests=tuple(
            Request(
                id=i,
                arrival_ns=round(arrival_s * S),
                prompt_tokens=100,
                output_tokens=1,
                blocks=(),
                block_tokens=64,
            )
            for i, arrival_s in enumerate(arrivals_s)
        ),
        bursts=bursts,
    )


def times_s(made: Workload) -> list[float]:
    return [request.arrival_ns / S for request in made.requests]


def mooncake_file(folder: Path, *timestamps_ms: int) -> Path:
    path = folder / "trace.jsonl"
    rows = (
        {"timestamp": t, "input_length": 600, "output_length": 1, "hash_ids": [0, i]}
        for i, t in enumerate(timestamps_ms, start=1)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def section(**keys: object) -> WorkloadSection:
    return WorkloadSection.model_validate({"rate": None, "load": None, **keys})


def made(keys: WorkloadSection, capacity_rps: float = 10.0) -> Workload:
    return make_workload(keys, seed=1, capacity=lambda requests: Capacity(rps=capacity_rps, words="a test"))


def test_stretching_multiplies_every_arrival() -> None:
    assert times_s(arrivals.stretched(workload(0, 1, 3), 2.5)) == [0, 2.5, 7.5]


def test_the_factor_to_a_rate_counts_gaps_not_requests() -> None:
    """Three arrivals in 4 s are 2 gaps in 4 s, or 0.5/s. For 2/s, time shrinks to a quarter."""
    assert arrivals.stretch_to(workload(0, 1, 4), 2.0) == 0.25


def test_one_instant_cannot_be_stretched() -> None:
    with pytest.raises(UserError, match="all 2 requests of the trace arrive at one instant"):
        arrivals.stretch_to(workload(0, 0), 1.0)


def test_poisson_arrivals_have_the_rate_and_the_scatter_of_a_poisson_process() -> None:
    """At 4/s, the mean and the deviation of the gaps are 0.25 s. 10,000 gaps meet both within 5 %."""
    at = times_s(arrivals.poisson(workload(*range(10_000)), 4.0, seed=1))

    gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert at[0] == 0
    assert statistics.mean(gaps) == pytest.approx(0.25, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.25, rel=0.05)


def test_a_burst_arrives_together_at_the_rate_of_requests() -> None:
    """8 requests/s in bursts of 4 are 2 bursts/s, so 2,000 bursts take about 1,000 s."""
    bursts = tuple(i // 4 for i in range(8000))

    at = times_s(arrivals.poisson(workload(*range(8000), bursts=bursts), 8.0, seed=1))

    assert all(len(set(at[i : i + 4])) == 1 for i in range(0, 8000, 4))
    assert len(set(at)) == 2000
    assert at[-1] == pytest.approx(1000, rel=0.05)


def test_the_busy_share_gives_the_dispersion_that_was_asked_for() -> None:
    """4/s, bursts of 2 s: I = 1 + 2 * 4 * 2 * (1 - p)**2 / p. For p = 1/4 that is 1 + 16 * 9/4 = 37."""
    process = arrivals.bursty_process(4.0, 37.0, 2.0)

    assert process.busy == pytest.approx(0.25)
    assert index_of_dispersion(process) == pytest.approx(37)


def test_without_a_length_of_bursts_half_of_the_time_is_in_them() -> None:
    """p = 1/2: I = 1 + 2 * 4 * b / 2, which is 9 for b = 2 s."""
    process = arrivals.bursty_process(4.0, 9.0)

    assert (process.burst_s, process.busy) == (2.0, 0.5)
    assert index_of_dispersion(process) == pytest.approx(9)


@pytest.mark.parametrize("burst_s", [None, 0.5])
def test_bursty_arrivals_have_the_rate_and_the_dispersion_that_were_asked_for(burst_s: float | None) -> None:
    """400,000 arrivals at 20/s take 20,000 s: 1,000 windows of 20 s, which are long compared with a burst.

    The variance of 1,000 counts has a standard error of sqrt(2 / 1,000) = 4.5 %; three times that is 13 %.
    Windows of 0.5 s, of which there are 40,000, have the dispersion of the formula for that length.
    """
    process = arrivals.bursty_process(20.0, 5.0, burst_s)
    at = np.array(times_s(arrivals.bursty(workload(*[0.0] * 400_000), process, seed=1)))

    assert at[-1] == pytest.approx(20_000, rel=0.02)
    assert dispersion((at * S).astype(np.int64), 20) == pytest.approx(
        index_of_dispersion(process, 20), rel=0.13
    )
    assert index_of_dispersion(process, 20) == pytest.approx(5, rel=0.03)
    short = index_of_dispersion(process, 0.5)
    assert dispersion((at * S).astype(np.int64), 0.5) == pytest.approx(short, rel=0.05)
    assert 1 < short < 4.5


def test_gaps_of_bursty_arrivals_deviate_as_those_of_a_renewal_process() -> None:
    """In a renewal process, the squared variation of the gaps is the dispersion in long windows: 5."""
    process = arrivals.bursty_process(20.0, 5.0)
    at = times_s(arrivals.bursty(workload(*[0.0] * 200_000), process, seed=2))

    gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert (statistics.stdev(gaps) / statistics.mean(gaps)) ** 2 == pytest.approx(5, rel=0.05)


def test_requests_that_arrive_together_stay_together_in_bursty_arrivals() -> None:
    bursts = tuple(i // 4 for i in range(400))
    together = workload(*[0.0] * 400, bursts=bursts)

    at = times_s(arrivals.bursty(together, arrivals.bursty_process(2.0, 3.0), seed=1))

    assert all(len(set(at[i : i + 4])) == 1 for i in range(0, 400, 4))
    assert len(set(at)) == 100


def test_a_generated_workload_arrives_in_bursts_where_asked() -> None:
    """Agents send bursts of requests: 5 requests/s arrive at fewer moments, and these are bursty."""
    result = made(section(rate=5, kind="agent", requests=4000, arrivals="bursty", dispersion=3))

    assert times_s(result)[-1] == pytest.approx(800, rel=0.1)
    assert (
        "requests that arrive together are an interrupted Poisson process: dispersion 3" in result.notes[-1]
    )


def test_a_trace_can_arrive_in_bursts_too(tmp_path: Path) -> None:
    path = mooncake_file(tmp_path, *[1000 * i for i in range(500)])

    keys = section(kind="mooncake", path=str(path), requests=500, arrivals="bursty", dispersion=4, rate=10)
    result = made(keys)

    assert times_s(result)[0] == 0
    assert result.notes == (
        "arrivals are an interrupted Poisson process: dispersion 4, bursts of 0.3 s, 50.0% of the time, "
        "at 10 requests/s",
    )
    assert times_s(result) == times_s(made(keys))


def test_the_first_requests_are_marked_as_warm_up() -> None:
    result = made(section(load=0.5, requests=5, warmup=2))

    assert [request.warmup for request in result.requests] == [True, True, False, False, False]
    assert result.notes[-1] == "the first 2 of 5 requests warm up and count in no measure"


def test_a_generated_workload_arrives_at_a_share_of_the_capacity() -> None:
    """0.5 of 10 requests/s: 2,000 requests take about 400 s."""
    result = made(section(load=0.5, requests=2000))

    assert times_s(result)[-1] == pytest.approx(400, rel=0.1)
    assert "Poisson at 5 requests/s, 0.5 of an estimated capacity of 10" in result.notes[-1]


def test_a_trace_keeps_its_own_time_when_nothing_else_is_asked(tmp_path: Path) -> None:
    path = mooncake_file(tmp_path, 0, 1000, 3000)

    result = made(section(kind="mooncake", path=str(path), requests=3))

    assert times_s(result) == [0, 1, 3]
    assert result.notes == ()


def test_a_trace_is_stretched_to_the_load_and_a_note_says_how_much(tmp_path: Path) -> None:
    """2 gaps in 4 s are 0.5/s. Half of a capacity of 2/s is 1/s, so time is halved."""
    path = mooncake_file(tmp_path, 0, 1000, 4000)

    result = made(section(kind="mooncake", path=str(path), requests=3, load=0.5), capacity_rps=2.0)

    assert times_s(result) == [0, 0.5, 2.0]
    assert result.notes[-1].startswith("the trace's time is stretched by 0.5 to 1 requests/s")


def test_a_time_scale_stretches_the_trace_by_itself(tmp_path: Path) -> None:
    path = mooncake_file(tmp_path, 0, 1000, 4000)

    result = made(section(kind="mooncake", path=str(path), requests=3, time_scale=3))

    assert times_s(result) == [0, 3, 12]


def test_poisson_arrivals_on_a_trace_say_nothing_of_its_ticks(tmp_path: Path) -> None:
    path = mooncake_file(tmp_path, 0, 0, 3000, 3000, 6000, 6000)

    result = made(section(kind="mooncake", path=str(path), requests=6, arrivals="poisson", rate=2))

    assert len(set(times_s(result))) == 6
    assert result.notes == ("arrivals are Poisson at 2 requests/s",)


def sessions_file(folder: Path) -> Path:
    """Three sessions that begin at 0, 2 and 4 s. The first has a second turn, 3 s after the answer."""
    path = folder / "trace.jsonl"
    rows = (
        {"timestamp": 0, "session_id": "a"},
        {"delay": 3000, "session_id": "a"},
        {"timestamp": 2000},
        {"timestamp": 4000, "session_id": "b"},
    )
    path.write_text("".join(json.dumps({"input_length": 9, "output_length": 1} | r) + "\n" for r in rows))
    return path


def test_a_stretched_trace_has_stretched_pauses(tmp_path: Path) -> None:
    keys = section(kind="mooncake", path=str(sessions_file(tmp_path)), requests=4, time_scale=2)

    result = made(keys)

    assert [request.after for request in result.requests] == [None, 0, None, None]
    assert [request.pause_ns for request in result.requests] == [0, 6 * S, 0, 0]
    assert times_s(result) == [0, 6, 4, 8]


def test_the_rate_of_a_trace_with_sessions_counts_the_turns_that_wait(tmp_path: Path) -> None:
    """3 first turns in 4 s are 0.5/s, and 4 requests per 3 of them 0.667/s. 2/s is three times as much."""
    keys = section(kind="mooncake", path=str(sessions_file(tmp_path)), requests=4, rate=2)

    result = made(keys)

    assert times_s(result) == pytest.approx([0, 1, 2 / 3, 4 / 3])
    assert "time_scale: 1 keeps its own 0.667 requests/s" in result.notes[-2]
    assert result.notes[-1] == "requests that wait for no answer arrive at 1.5/s of 2/s; turns follow"


def test_random_arrivals_leave_pauses_as_they_are(tmp_path: Path) -> None:
    keys = section(
        kind="mooncake", path=str(sessions_file(tmp_path)), requests=4, arrivals="poisson", rate=100
    )

    result = made(keys)

    first, second, third, fourth = times_s(result)
    assert second == first + 3
    assert first < third < fourth < 1


def test_a_time_scale_for_random_arrivals_is_refused_with_what_it_is_for() -> None:
    with pytest.raises(ValueError, match="stretches a trace; random arrivals need"):
        section(kind="mooncake", path="x", arrivals="poisson", time_scale=2)
