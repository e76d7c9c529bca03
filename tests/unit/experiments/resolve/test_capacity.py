"""The capacity that a load is a share of, against overloaded runs and by hand."""

import random

import msgspec
import pytest
from result_rows import request_row

from controller.units import NS_PER_S
from experiments.resolve.capacity import (
    delivered_rate_rps,
    estimated_capacity,
    prefill_rate_error,
    prefill_rate_rps,
)
from experiments.resolve.jobs import resolve
from experiments.resolve.work_demand import demand
from experiments.scenario.reading import load_scenario, override
from testbed.job import Collect, Job
from testbed.record import RequestRow
from testbed.serving.capacity import decode_rps
from testbed.serving.decoding import batch_step_s
from testbed.simulation.fabric_sim import SimulatedFabric

_AGENTS = ("workload.requests=384",)  # a batch holds some twenty, and several batches have to be full
_CHUNKED = (
    "workload.requests=96",
    "workload.kind=conversation",
    "serving.chunk_tokens=2048",
    "units.prefill_units=1",
)


def job_of(*settings: str, scenario: str = "quickstart") -> Job:
    texts = ("fabric=sim", "policies=[fair]", *settings)
    return resolve(load_scenario(scenario, [override(text) for text in texts])).jobs[0]


def overloaded_rps(job: Job) -> float:
    """The first tokens per second of the middle of a run, at twice what full, even batches could do."""
    gap_ns = NS_PER_S / (2 * demand(job, job.requests).capacity_rps)
    arriving = tuple(
        msgspec.structs.replace(request, arrival_ns=round(i * gap_ns))
        for i, request in enumerate(job.requests)
    )
    overloaded = msgspec.structs.replace(job, requests=arriving, collect=Collect.SUMMARY)
    rows = SimulatedFabric().run(overloaded, lambda state: None).requests
    answered = sorted(row.first_token_ns for row in rows if row.first_token_ns is not None)
    first, last = len(answered) // 5, 4 * len(answered) // 5
    return (last - first) * NS_PER_S / (answered[last] - answered[first])


@pytest.mark.parametrize("settings", [_AGENTS, _CHUNKED], ids=["agents", "chunked conversations"])
def test_the_capacity_is_what_an_overloaded_run_gets_done(settings: tuple[str, ...]) -> None:
    """In both, full and even batches could do about twice as much."""
    job = job_of(*settings)
    reached = overloaded_rps(job)

    assert estimated_capacity(job, job.requests).rps == pytest.approx(reached, rel=0.15)
    assert demand(job, job.requests).capacity_rps > 1.5 * reached


def test_batches_that_are_very_uneven_are_measured_for_longer() -> None:
    """Eight replicas wait for the one with the most tokens. After eight batches of each unit, the estimate is
    14 % too low."""
    job = job_of(
        "workload.requests=600",
        "workload.warmup=0",
        "gpu=h100",
        "units.layout=spread",
        scenario="motivation",
    )
    assert estimated_capacity(job, job.requests).rps == pytest.approx(overloaded_rps(job), rel=0.1)


def test_prompts_late_in_a_trace_count_as_those_at_its_beginning() -> None:
    """Eight replicas share a batch of about eight prompts. Those of the first half of a trace are alike, and
    keep all replicas busy; those of the second half have the same mean and are not."""
    job = job_of(
        "workload.kind=conversation",
        "workload.requests=768",
        "units.ranks_per_unit=8",
        "topology.servers=18",
        "gpu=h100",
        "workload.rate=1",
    )
    draw = random.Random(1)
    lengths = [1024] * 384 + draw.sample([128, 128, 128, 3712] * 96, 384)
    requests = [
        msgspec.structs.replace(request, prompt_tokens=tokens, blocks=(), after=None, pause_ns=0)
        for request, tokens in zip(job.requests, lengths, strict=True)
    ]
    found = estimated_capacity(job, requests).rps
    assert found == pytest.approx(estimated_capacity(job, draw.sample(requests, 768)).rps, rel=0.3)
    assert found < 0.6 * estimated_capacity(job, requests[:384]).rps


def test_where_s3_limits_the_capacity_is_the_rate_of_what_is_delivered() -> None:
    """Units of one fast GPU prefill twice as many prompts as two decode workers can receive at 25 Gb/s."""
    job = job_of(
        "workload.requests=400",
        "workload.kind=conversation",
        "model=llama-3-8b",
        "gpu=h100",
        "units.ranks_per_unit=1",
        "topology.nic_gbps=25",
    )
    assert estimated_capacity(job, job.requests).rps == pytest.approx(overloaded_rps(job), rel=0.15)


def test_no_estimate_is_more_than_full_even_batches_could_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short run that happened to see light prompts only."""
    monkeypatch.setattr("experiments.resolve.capacity.prefill_rate_rps", lambda rows: 1e6)
    job = job_of("workload.requests=7")
    found = estimated_capacity(job, job.requests)
    assert found.rps == demand(job, job.requests).capacity_rps
    assert "reaches 100.0 % of what full, even batches could do" in found.words


def test_the_arrivals_of_a_load_do_not_depend_on_rules() -> None:
    """Else no two rules could be compared at one load."""
    plain = job_of("workload.load=0.5").requests
    for setting in (
        "serving.batching=red",
        "serving.router=round-robin",
        "serving.reuse=recompute",
        "simulation.separate=true",
    ):
        other = job_of("workload.load=0.5", setting).requests
        assert [one.arrival_ns for one in other] == [one.arrival_ns for one in plain]


def rows_of_two_units() -> list[RequestRow]:
    """Requests by the seconds in which their batches end."""
    ends = {"a": {1: 1, 2: 4, 4: 4, 5: 4, 6: 2}, "b": {1: 2, 2: 2, 3: 2, 4: 2}}
    return [
        request_row(unit=unit, prefill_end_ns=second * NS_PER_S)
        for unit, of_unit in ends.items()
        for second, count in of_unit.items()
        for _ in range(count)
    ]


def test_a_unit_is_measured_between_the_ends_of_batches() -> None:
    """Unit a ends batches of 1, 4, 4, 4 and 2 requests at 1, 2, 4, 5 and 6 s. Without the first batch and the
    last one, these are 12 requests in the 4 s from 1 to 5 s. Unit b ends 2 in each of seconds 1 to 4: 2/s."""
    rows = rows_of_two_units()
    assert prefill_rate_rps(rows) == pytest.approx(3.0 + 2.0)


def test_the_error_of_a_rate_is_that_of_its_batches() -> None:
    """The batches of unit a that count have 4 requests in 1, 2 and 1 s. At its rate of 3/s, these are 1, -2
    and 1 more than expected, so the variance is (1 + 4 + 1) * 3/2 / (4 s)^2 = (0.75/s)^2. Unit b, 2/s, is
    even. Of 5/s, 0.75/s are 15 %."""
    rows = rows_of_two_units()
    assert prefill_rate_error(rows) == pytest.approx(0.15)
    assert prefill_rate_error(rows[:5]) == float("inf")


def test_s3_counts_where_it_ends_long_after_prefill() -> None:
    """Four requests are prefilled in 4 s. If the last has its KV after 8 s, S3 delivers 4 in 8 s."""

    def rows(last_s: float) -> list[RequestRow]:
        p2d_s = (2.0, 3.0, 4.0, last_s)
        return [
            request_row(prefill_end_ns=(i + 1) * NS_PER_S, p2d_end_ns=round(end_s * NS_PER_S))
            for i, end_s in enumerate(p2d_s)
        ]

    assert delivered_rate_rps(rows(8.0)) == 0.5
    assert delivered_rate_rps(rows(4.4)) is None


def test_full_steps_of_decode_workers_limit_answers() -> None:
    """Each request is in as many steps as it has tokens after the first."""
    job = job_of("serving.decode_batch=4", "units.decode_ranks=3", "workload.rate=1")
    alike = tuple(
        msgspec.structs.replace(request, prompt_tokens=1000, output_tokens=101) for request in job.requests
    )
    step_s = batch_step_s(job.model, job.gpu, [1050] * 4)  # half of an answer has about 50 tokens

    assert decode_rps(job, alike) == pytest.approx(3 * 4 / (100 * step_s), rel=1e-3)
    assert estimated_capacity(job, alike).rps == decode_rps(job, alike)
    assert "the decode workers set it" in estimated_capacity(job, alike).words

    without = msgspec.structs.replace(job, serving=msgspec.structs.replace(job.serving, decode_batch=None))
    assert decode_rps(without, alike) is None
