"""The prefix cache of a replica: its size, how much it is used, and the load on the holder of a prefix."""

import msgspec
import pytest
from serving_world import DENSE, MOE, job, placed, prompt

from controller.flow import Stage
from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.results.summary import summarise
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job, Request
from testbed.models.shape import LatentAttention
from testbed.record import CacheRow, RunRecord
from testbed.serving.cache.size_and_use import cache_capacity_blocks, replica_bytes_per_token
from testbed.serving.system import ServingSystem
from workers.plan import BatchPlan

S = 1_000_000_000

A, B = (1, 2, 3), (11, 12, 13)


def bounded(tokens: int | None, *, units: int = 1, requests: tuple[Request, ...] = ()) -> Job:
    """Units of one rank each, taken in turn, each with a cache of `tokens` tokens."""
    topology, placement = placed(units=units, per_unit=1, servers=units + 1)
    made = job(topology, placement, router="round-robin", max_batch_tokens=64)
    serving = msgspec.structs.replace(made.serving, cache_tokens=tokens)
    simulation = msgspec.structs.replace(made.simulation, progress_ns=S)
    return msgspec.structs.replace(made, serving=serving, requests=requests, simulation=simulation)


def played(a_job: Job) -> RunRecord:
    record = FABRICS["sim"]().run(a_job, lambda progress: None)
    assert [check.name for check in record.fidelity.checks if not check.ok] == []
    return record


def test_a_cache_too_small_for_two_prefixes_evicts_and_misses() -> None:
    """Room for 4 blocks, prompts of 3 blocks and a token, one after the other:

    A misses 3. B misses 3 and evicts blocks 3 and 2 of A, the least useful. A finds 1, misses 2, evicts 13
    and 12 of B. A again finds all 3. B finds 1, misses 2, and evicts 2 of A.
    """
    requests = tuple(
        prompt(number, 13, blocks, arrival_ns=number * 1000 * S)
        for number, blocks in enumerate((A, B, A, A, B))
    )
    record = played(bounded(16, requests=requests))
    assert [row.local_tokens for row in record.requests] == [0, 0, 4, 12, 4]
    assert record.caches == (
        CacheRow(
            unit="p0",
            requests=5,
            prompt_tokens=65,
            local_blocks=5,
            missed_blocks=10,
            local_tokens=20,
            missed_tokens=40,
            evicted_blocks=6,
        ),
    )


def test_a_cache_that_is_not_bounded_evicts_nothing() -> None:
    requests = tuple(
        prompt(number, 13, blocks, arrival_ns=number * 1000 * S)
        for number, blocks in enumerate((A, B, A, A, B))
    )
    [row] = played(bounded(None, requests=requests)).caches
    assert (row.local_blocks, row.missed_blocks, row.evicted_blocks) == (9, 6, 0)


def test_many_requests_with_one_prefix_all_load_the_server_that_has_it() -> None:
    """Unit p0 has the prefix. The next three requests, at once, go to p1, p2 and p3, and each fetches 4
    blocks of 4 tokens, 32 B each in 2 layers: 3 x 512 B = 1536 B leave p0's server, none another. At 100
    B/s the last of them has arrived after 15.36 s. The request after them finds the prefix on p0."""
    prefix = (1, 2, 3, 4)
    first = prompt(0, 17, prefix)
    agents = [prompt(number, 18, prefix, arrival_ns=1000 * S) for number in (1, 2, 3)]
    last = prompt(4, 18, prefix, arrival_ns=2000 * S)
    record = played(bounded(None, units=4, requests=(first, *agents, last)))
    fetches = [flow for flow in record.flows if flow.stage is Stage.KV_REUSE]
    assert {flow.src_server for flow in fetches} == {"h1"}
    assert {flow.dst_server for flow in fetches} == {"h2", "h3", "h4"}
    assert sum(flow.size_bytes for flow in fetches) == 1536
    assert max(flow.finish_ns for flow in fetches) == pytest.approx(1015.36 * S, rel=1e-9)
    counts = {row.unit: (row.local_blocks, row.remote_blocks, row.missed_blocks) for row in record.caches}
    assert counts == {"p0": (4, 0, 4), "p1": (0, 4, 0), "p2": (0, 4, 0), "p3": (0, 4, 0)}


def test_with_room_for_less_than_the_prefix_the_agents_miss_what_does_not_fit() -> None:
    """Room for 3 of the 4 blocks: the last one is evicted at once, and all three requests miss it. Each
    fetches 3 x 4 x 32 = 384 B and computes 18 - 12 = 6 tokens. Each unit evicts the last block again."""
    prefix = (1, 2, 3, 4)
    agents = [prompt(number, 18, prefix, arrival_ns=1000 * S) for number in (1, 2, 3)]
    record = played(bounded(15, units=4, requests=(prompt(0, 17, prefix), *agents)))
    fetched = sum(flow.size_bytes for flow in record.flows if flow.stage is Stage.KV_REUSE)
    assert fetched == 3 * 384
    assert [row.new_tokens for row in record.requests] == [17, 6, 6, 6]
    rows = [(row.remote_blocks, row.missed_blocks, row.evicted_blocks) for row in record.caches]
    assert rows == [(0, 4, 1), (3, 1, 1), (3, 1, 1), (3, 1, 1)]


def test_the_summary_has_the_counts_by_unit_and_in_total() -> None:
    prefix = (1, 2)
    requests = (prompt(0, 9, prefix), prompt(1, 9, prefix, arrival_ns=1000 * S))
    made = bounded(None, units=2, requests=requests)
    summary = summarise(scenario="tiny", fabric="sim", seed=1, scale=made.scale, records=[played(made)])
    cache = summary["runs"][0]["cache"]
    assert cache["units"]["p1"]["remote_tokens"] == 8
    assert cache["total"] == {
        "requests": 2,
        "prompt_tokens": 18,
        "local_blocks": 0,
        "remote_blocks": 2,
        "recomputed_blocks": 0,
        "missed_blocks": 2,
        "local_tokens": 0,
        "remote_tokens": 8,
        "recomputed_tokens": 0,
        "missed_tokens": 8,
        "evicted_blocks": 0,
    }


def test_a_request_counts_once_when_its_batch_is_formed() -> None:
    system = ServingSystem(bounded(None))
    [plan] = system.arrive(0, prompt(0, 9, (1, 2)))
    assert isinstance(plan, BatchPlan)
    system.arrive(1, prompt(1, 9, (1, 2)))
    assert [row.requests for row in system.caches()] == [1]
    system.batch_done(2, plan.id)
    assert [(row.requests, row.local_blocks) for row in system.caches()] == [(2, 2)]


# --- its size ---------------------------------------------------------------------------------------


def test_a_cache_holds_whole_blocks() -> None:
    requests = (prompt(0, 9, (1, 2)),)
    assert cache_capacity_blocks(bounded(11, requests=requests)) == 2
    assert cache_capacity_blocks(bounded(None, requests=requests)) is None
    with pytest.raises(ValueError, match="a prefix cache of 3 tokens has no room for a block of 4"):
        cache_capacity_blocks(bounded(3, requests=requests))


def test_copies_of_a_token_take_room_too() -> None:
    """32 B a token. 2 KV heads on 4 ranks: every head is there twice. A latent of 3 + 1 elements of 2 B
    in 2 layers, 16 B, is whole on every rank."""
    assert [replica_bytes_per_token(DENSE, tp) for tp in (1, 2, 4)] == [32, 32, 64]
    latent = LatentAttention(q_rank=0, kv_rank=3, nope_dim=1, rope_dim=1, v_dim=1)
    mla = msgspec.structs.replace(MOE, latent=latent)
    assert [replica_bytes_per_token(mla, tp) for tp in (1, 4)] == [16, 64]


def resolved(*settings: str) -> Job:
    texts = ["fabric=sim", "workload.requests=4", *settings]
    return resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]


def test_the_size_may_be_given_in_tokens_or_in_gib() -> None:
    """Mixtral-8x7B: 2 x 8 heads x 128 x 2 B x 32 layers = 131,072 B a token, 8,192 tokens a GiB."""
    assert resolved().serving.cache_tokens is None
    assert resolved("serving.cache_tokens=10000").serving.cache_tokens == 10000
    assert resolved("serving.cache_gib=1.5").serving.cache_tokens == 12288


def test_two_sizes_and_one_without_room_for_a_block_are_refused() -> None:
    with pytest.raises(UserError, match="only one of cache_tokens and cache_gib may be given"):
        resolved("serving.cache_gib=1", "serving.cache_tokens=10000")
    with pytest.raises(UserError, match=r"serving\.cache_tokens: a prefix cache of 3 tokens has no room"):
        resolved("serving.cache_tokens=3")
