"""Whole simulated runs with every way to form batches: all requests are served, all KV is delivered."""

import functools
import itertools
from collections import defaultdict

import msgspec
import pytest

from controller.flow import Stage
from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.results.requests import batches_of
from experiments.results.spans import spans_by_batch
from experiments.results.ttft_parts import time_spent
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job
from testbed.models.sizes import kv_bytes_per_token
from testbed.record import RunRecord
from testbed.serving.replay import NotReplayable, plans_of

FEW = ("fabric=sim", "workload.requests=10", "workload.load=null", "workload.rate=150", "slo.multiple=2")


def job(policy: str, *settings: str) -> Job:
    texts = [*FEW, f'policies=["{policy}"]', *settings]
    return resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]


@functools.cache
def played(policy: str, *settings: str) -> RunRecord:
    return FABRICS["sim"]().run(job(policy, *settings), lambda progress: None)


@pytest.mark.parametrize("policy", ["fair", "mfs"])
@pytest.mark.parametrize(
    "settings",
    [
        ("serving.batching=deadline",),
        ("serving.batching=red",),
        ("serving.batching=length-aware",),
        ("serving.chunk_tokens=1500",),
        ("serving.chunk_tokens=1500", "serving.batching=red", "serving.preempt_layers=4"),
        ("serving.chunk_tokens=1500", "serving.batching=length-aware"),
        ("serving.preempt_layers=1", "serving.batching=deadline"),
        ("units.pp=2",),
        ("units.pp=2", "serving.chunk_tokens=1500", "serving.batching=deadline"),
        ("units.sp=2", "serving.chunk_tokens=1500"),
    ],
    ids=" ".join,
)
def test_every_request_is_served_and_its_kv_delivered(policy: str, settings: tuple[str, ...]) -> None:
    record, made = played(policy, *settings), job(policy, *settings)
    assert [check.name for check in record.fidelity.checks if not check.ok] == []
    delivered: dict[int | None, int] = defaultdict(int)
    last: dict[int | None, int] = defaultdict(int)
    for flow in record.flows:
        if flow.stage is Stage.P2D:
            delivered[flow.request] += flow.size_bytes
            last[flow.request] = max(last[flow.request], flow.finish_ns)
    limit = made.serving.chunk_tokens or made.serving.max_batch_tokens
    spans = spans_by_batch(record.spans)
    for row in record.requests:
        assert row.status == "completed"
        assert row.prompt_tokens == row.new_tokens + row.local_tokens + row.remote_tokens
        assert delivered[row.request] == row.prompt_tokens * kv_bytes_per_token(made.model)
        assert row.p2d_end_ns == last[row.request]
        assert row.start_ns is not None
        assert row.prefill_end_ns is not None
        assert row.first_token_ns is not None
        assert row.arrival_ns <= row.start_ns < row.prefill_end_ns
        assert row.first_token_ns > row.p2d_end_ns
        if row.new_tokens > limit and made.serving.chunk_tokens is not None:
            assert len(batches_of(row)) >= 2
        spent = time_spent(row, spans)
        assert spent is not None
        assert spent.compute_ns > 0
        parts = [getattr(spent, name) for name in spent.__struct_fields__]
        assert min(parts) >= 0
        assert sum(parts) == row.ttft_ns


def test_first_come_first_served_is_what_a_plain_policy_gets_anyway() -> None:
    plain, named = played("mfs"), played("mfs", "serving.batching=fcfs")
    assert msgspec.structs.replace(plain, wall_s=0.0) == msgspec.structs.replace(named, wall_s=0.0)


def test_options_that_change_nothing_give_the_same_run() -> None:
    """None of these prompts fills a batch, and a pause takes no time of its own."""
    plain = played("mfs")
    wide = played("mfs", "serving.max_batch_tokens=200000", "serving.chunk_tokens=200000")
    whole = played("mfs", "serving.max_batch_tokens=200000")
    paused = played("mfs", "serving.preempt_layers=100")
    assert msgspec.structs.replace(wide, wall_s=0.0) == msgspec.structs.replace(whole, wall_s=0.0)
    assert msgspec.structs.replace(paused, wall_s=0.0) == msgspec.structs.replace(plain, wall_s=0.0)


def test_a_batch_of_a_run_that_splits_prompts_has_no_more_tokens_than_it_may() -> None:
    """10 requests, of which several have more than 1500 new tokens."""
    record = played("mfs", "serving.chunk_tokens=1500")
    split = [row for row in record.requests if row.earlier_batches]
    assert split
    for row in split:
        assert len(batches_of(row)) >= row.new_tokens / 1500
        assert list(batches_of(row)) == sorted(batches_of(row), key=lambda name: int(name.split(".b")[1]))


def test_in_a_pipeline_two_batches_are_in_flight_and_a_rank_does_one_after_the_other() -> None:
    record = played("fair", "units.pp=2")
    by_rank: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
    busy: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for span in record.spans:
        if span.kind == "compute" and span.batch is not None and span.end_ns > span.start_ns:
            by_rank[span.rank].append((span.start_ns, span.end_ns, span.batch))
            busy[span.batch].append((span.start_ns, span.end_ns))
    for work in by_rank.values():
        work.sort()
        batches = [batch for batch, _ in itertools.groupby(work, key=lambda item: item[2])]
        assert len(batches) == len(set(batches))
        assert all(end <= start for (_, end, _), (start, _, _) in itertools.pairwise(work))
    extent = {batch: (min(times)[0], max(end for _, end in times)) for batch, times in busy.items()}
    unit = sorted(extent[batch] for batch in extent if batch.startswith("p0."))
    overlaps = sum(later[0] < before[1] for before, later in itertools.pairwise(unit))
    assert overlaps > 0


def test_a_split_run_cannot_be_made_again_from_its_requests() -> None:
    made, record = job("mfs", "serving.chunk_tokens=1500"), played("mfs", "serving.chunk_tokens=1500")
    with pytest.raises(NotReplayable, match=r"serving\.chunk_tokens"):
        plans_of(made, record.requests)


def test_a_pipeline_makes_its_batches_again() -> None:
    """With planned batches, two are in flight too."""
    made, record = job("fair", "units.pp=2"), played("fair", "units.pp=2")
    again = msgspec.structs.replace(made, plans=plans_of(made, record.requests))
    assert FABRICS["sim"]().run(again, lambda progress: None).requests == record.requests


def test_a_batching_that_is_not_there_is_refused_with_its_neighbour() -> None:
    with pytest.raises(UserError, match="did you mean 'deadline'"):
        job("fair", "serving.batching=deadlines")


def test_preemption_in_a_pipeline_is_refused_by_its_key() -> None:
    with pytest.raises(UserError, match=r"serving\.preempt_layers.*pipeline"):
        job("fair", "serving.preempt_layers=4", "units.pp=2")
