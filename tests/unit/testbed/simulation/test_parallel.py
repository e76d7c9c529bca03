"""Simulated runs of every kind of parallelism, alone and together: all requests end, all bytes arrive."""

import msgspec
import pytest
from serving_world import DENSE as DENSE_TINY
from serving_world import job, placed, prompt

from controller.flow import Stage
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job
from testbed.record import RunRecord
from testbed.simulation.run import SimulatedRun

DENSE = ("model=llama-3-8b",)
DEEPSEEK = ("model=deepseek-v3", "gpu=h200", "simulation.collectives=grouped")
LLAMA_70B = (
    "model=llama-3-70b",
    "gpu=h100",
    "units.prefill_units=1",
    "units.ranks_per_unit=16",
    "units.tp=8",
    "units.pp=2",
    "topology.servers=18",
    "simulation.collectives=grouped",
)


@pytest.mark.parametrize("policy", ["fair", "mfs"])
@pytest.mark.parametrize(
    "settings",
    [
        (*DENSE, "units.tp=2", "units.sp=2"),
        (*DENSE, "units.tp=1", "units.sp=4", "units.sequence=ulysses"),
        (*DENSE, "units.tp=2", "units.pp=2"),
        (*DENSE, "units.sp=2", "units.pp=2"),
        ("units.pp=2",),
        ("units.tp=2", "units.sp=2"),
        ("units.sp=2", "units.sequence=ulysses", "units.ep=2"),
        ("units.expert_skew=1",),
        ("units.expert_skew=1", "units.pp=2", "simulation.collectives=grouped"),
    ],
    ids=" ".join,
)
def test_all_requests_get_their_first_token(settings: tuple[str, ...], policy: str) -> None:
    _runs_through(policy, *settings)


@pytest.mark.parametrize("settings", [DEEPSEEK, (*DEEPSEEK, "units.sp=2"), LLAMA_70B], ids=" ".join)
def test_large_models_run(settings: tuple[str, ...]) -> None:
    """DeepSeek-V3 has 3 dense layers before 58 with experts; Llama 3 70B takes 2 stages of 8 ranks here."""
    _runs_through("mfs", *settings)


def _runs_through(policy: str, *settings: str) -> None:
    played, record = _run(policy, *settings)
    assert len(record.requests) == len(played.requests) == 3
    assert record.fidelity.faithful, record.fidelity
    for row in record.requests:
        assert row.first_token_ns is not None
    # A token has the same KV in every layer, whichever ranks it is on.
    model = played.model
    elements = 2 * model.kv_heads * model.head_dim
    if model.latent is not None:
        elements = model.latent.kv_rank + model.latent.rope_dim
    delivered = sum(row.size_bytes for row in record.flows if row.stage is Stage.P2D)
    assert delivered == sum(r.prompt_tokens for r in played.requests) * model.layers * elements * 2


def test_a_unit_that_is_a_pipeline_overlaps_batches() -> None:
    """With two stages, the second batch begins before the first one has ended."""
    _, record = _run("fair", *DENSE, "units.prefill_units=1", "units.tp=1", "units.ranks_per_unit=2",
                     "units.pp=2", "workload.load=4", "serving.max_batch_tokens=1")  # fmt: skip
    times = sorted((row.start_ns or 0, row.prefill_end_ns or 0) for row in record.requests)
    assert times[1][0] < times[0][1]


@pytest.mark.parametrize("pp", [1, 2])
def test_a_record_says_how_many_batches_a_unit_works_on_at_once(pp: int) -> None:
    """Eight prompts that fill a batch each, at once, for one unit: it is never idle, and has one batch per
    stage in flight."""
    topology, placement = placed(units=1, per_unit=2, tp=1, pp=pp, model=DENSE_TINY)
    prompts = tuple(prompt(i, 16) for i in range(8))
    made = msgspec.structs.replace(job(topology, placement, model=DENSE_TINY), requests=prompts)
    record = SimulatedRun(made, lambda progress: None).run()
    times = [(row.start_ns or 0, row.prefill_end_ns or 0) for row in record.requests]
    at_once = max(sum(start <= begun < end for start, end in times) for begun, _ in times)
    assert (record.batches_at_once, at_once) == (pp, pp)


def _run(policy: str, *settings: str) -> tuple[Job, RunRecord]:
    texts = [f'policies=["{policy}"]', "fabric=sim", "workload.requests=3", *settings]
    made = resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]
    return made, FABRICS["sim"]().run(made, lambda progress: None)


@pytest.mark.parametrize("policy", ["fair", "mfs"])
def test_units_of_other_sizes_share_requests_and_prefixes(policy: str) -> None:
    """Reused KV that crosses between units of tp 2, 4 and 1 with two stages is the same number of bytes."""
    more = "units.more=[{ranks_per_unit: 4, tp: 4}, {ranks_per_unit: 2, tp: 1, pp: 2}]"
    job, record = _run(policy, "model=llama-3-8b", "units.prefill_units=1", "units.ranks_per_unit=2",
                       "units.tp=2", more, "serving.router=round-robin", "workload.requests=24")  # fmt: skip
    assert {row.unit for row in record.requests} == {"p0", "p1", "p2"}
    assert record.batches_at_once == 2
    unit_of = {spec.rank: spec.unit for spec in job.placement.ranks}
    crossed = set()
    for row in record.requests:
        s1 = [f for f in record.flows if f.request == row.request and f.stage is Stage.KV_REUSE]
        crossed |= {(unit_of[f.src], unit_of[f.dst]) for f in s1}
        assert sum(f.size_bytes for f in s1) == row.remote_tokens * 131_072
        s3 = [f for f in record.flows if f.request == row.request and f.stage is Stage.P2D]
        assert sum(f.size_bytes for f in s3) == row.prompt_tokens * 131_072
    assert len(crossed) >= 4
    assert record.fidelity.faithful
