"""The capacity that a load is a share of, against overloaded runs and by hand."""

import msgspec
import pytest
from result_rows import request_row

from controller.units import NS_PER_S
from experiments.resolve.capacity import estimated_capacity, prefill_rate_rps
from experiments.resolve.jobs import resolve
from experiments.resolve.work_demand import demand
from experiments.scenario.reading import load_scenario, override
from testbed.job import Collect, Job
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


def job_of(*settings: str) -> Job:
    texts = ("fabric=sim", "policies=[fair]", *settings)
    return resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]


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


def test_a_unit_is_measured_between_the_ends_of_batches() -> None:
    """Unit a ends batches of 1, 4, 4, 4 and 2 requests at 1, 2, 4, 5 and 6 s. Without the first batch and the
    last one, these are 12 requests in the 4 s from 1 to 5 s. Unit b ends 2 in each of seconds 1 to 4: 2/s."""
    ends = {"a": {1: 1, 2: 4, 4: 4, 5: 4, 6: 2}, "b": {1: 2, 2: 2, 3: 2, 4: 2}}
    rows = [
        request_row(unit=unit, prefill_end_ns=second * NS_PER_S)
        for unit, of_unit in ends.items()
        for second, count in of_unit.items()
        for _ in range(count)
    ]
    assert prefill_rate_rps(rows) == pytest.approx(3.0 + 2.0)


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
