"""First tokens and KV of sharded ranks are those of the whole model in one process."""

from collections import Counter

import msgspec
import pytest
import real_world as world
import torch
from real_world import DENSE, MOE, Cluster, real_job, request

from testbed.job import Job, Request
from testbed.models.shape import ModelShape
from testbed.placement import Layout, place
from testbed.unit_shape import Pool
from workers.exchange import Exchange
from workers.model.kv import KvStore
from workers.model.setup import Prompt
from workers.plan import CollectiveKind
from workers.protocol import TokenCheck

FIRST = request(0, 48, ())
REQUESTS = (
    FIRST,
    request(1, 48, FIRST.blocks[:4]),  # on the other unit, which fetches four blocks
    request(2, 36, ()),
    request(3, 64, FIRST.blocks[:5]),  # has four of the blocks by now, and fetches the fifth
)
# A key is up to 5 long, where two neighbours in 16 bits are 0.004 apart. Sums are rounded two or three times.
KV_ERROR = 0.01
LOGIT_ERROR = 0.005

LAYOUTS: dict[str, tuple[ModelShape, dict[str, int]]] = {
    "a whole replica on a rank": (DENSE, {"per_unit": 2, "tp": 1}),
    "tensor-parallel": (DENSE, {"per_unit": 2}),
    "a rank for each KV head": (DENSE, {"per_unit": 4}),
    "pipeline": (DENSE, {"per_unit": 2, "tp": 1, "pp": 2}),
    "tensor-parallel pipeline of three stages": (DENSE, {"per_unit": 6, "tp": 2, "pp": 3}),
    "experts on two ranks": (MOE, {"per_unit": 2}),
    "experts on four ranks": (MOE, {"per_unit": 4}),
    "groups of experts in a pipeline": (MOE, {"per_unit": 8, "ep": 2, "pp": 2}),
    "ring": (DENSE, {"per_unit": 2, "tp": 1, "sp": 2}),
    "ring of tensor-parallel ranks in a pipeline": (DENSE, {"per_unit": 8, "tp": 2, "sp": 2, "pp": 2}),
    "ring of four": (DENSE, {"per_unit": 4, "tp": 1, "sp": 4}),
    "experts and a ring": (MOE, {"per_unit": 4, "sp": 2}),
    "experts without a group": (MOE, {"per_unit": 2, "ep": 1}),
}


def results(job: Job) -> tuple[Cluster, dict[int, TokenCheck]]:
    cluster = Cluster(job)
    return cluster, cluster.serve()


def assert_right(checks: dict[int, TokenCheck], *requests: Request) -> None:
    assert sorted(checks) == [each.id for each in requests]
    for check in checks.values():
        assert check.token == check.expected_token
        assert check.logit_error < LOGIT_ERROR
        assert check.kv_error < KV_ERROR


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_and_kv_are_those_of_the_whole_model(layout: str) -> None:
    model, units = LAYOUTS[layout]
    cluster, checks = results(real_job(model, REQUESTS, units=2, **units))
    assert_right(checks, *REQUESTS)
    plans = [one for plan in cluster.plans for one in plan.requests]
    assert [(one.local_tokens, one.remote_tokens) for one in plans] == [(0, 0), (0, 32), (0, 0), (32, 8)]


def test_all_kv_of_a_prompt_is_compared() -> None:
    """KV of a token: 4 layers x 2 x 4 heads x 16 wide x 2 B = 1,024 B."""
    _, checks = results(real_job(DENSE, REQUESTS, units=2, per_unit=2))
    assert [checks[i].kv_bytes for i in range(4)] == [48 * 1024, 48 * 1024, 36 * 1024, 64 * 1024]


@pytest.mark.parametrize(
    "model",
    [
        msgspec.structs.replace(MOE, dense_layers=(0, 3), dense_ffn=80),
        msgspec.structs.replace(MOE, shared_ffn=40),
        msgspec.structs.replace(MOE, gated=False, window=10),
        msgspec.structs.replace(DENSE, gated=False, window=10),
    ],
    ids=["dense layers", "shared expert", "experts of two matrices", "window"],
)
def test_what_a_model_may_have_besides(model: ModelShape) -> None:
    _, checks = results(real_job(model, REQUESTS, units=2, per_unit=2))
    assert_right(checks, *REQUESTS)


@pytest.mark.parametrize("units", [{"per_unit": 2, "tp": 1, "sp": 2}, {"per_unit": 4, "tp": 2, "sp": 2}])
def test_parts_of_a_sequence_may_swap_heads_instead(units: dict[str, int]) -> None:
    _, checks = results(real_job(DENSE, REQUESTS, units=2, sequence=CollectiveKind.ALL_TO_ALL, **units))
    assert_right(checks, *REQUESTS)


def test_a_prompt_may_be_divided_among_ranks_and_batches() -> None:
    job = real_job(DENSE, REQUESTS, units=2, per_unit=2, tp=1, sp=2)
    serving = msgspec.structs.replace(job.serving, chunk_tokens=20)
    _, checks = results(msgspec.structs.replace(job, serving=serving))
    assert_right(checks, *REQUESTS)


@pytest.mark.parametrize(
    "other",
    [
        Pool(units=1, ranks=4, tp=4),
        Pool(units=1, ranks=4, tp=2, sp=2),
        Pool(units=1, ranks=4, tp=1, sp=4),
        Pool(units=1, ranks=8, tp=2, sp=2, pp=2),
    ],
    ids=["more heads", "parts of a sequence", "four parts", "pipeline of parts"],
)
def test_kv_moves_between_units_that_divide_the_model_differently(other: Pool) -> None:
    """The first unit has two tensor-parallel ranks. Each unit fetches what the other one has computed."""
    requests = (
        FIRST,
        request(1, 48, FIRST.blocks[:4]),
        request(2, 64, (*request(1, 48, FIRST.blocks[:4]).blocks,)),
        request(3, 64, FIRST.blocks),
    )
    job = real_job(DENSE, requests, units=1, per_unit=2)
    topology = job.topology
    placement = place(
        topology,
        prefill_units=1,
        ranks_per_unit=2,
        decode_ranks=1,
        ranks_per_server=None,
        tp=2,
        ep=None,
        layout=Layout.SPREAD,
        model=DENSE,
        more=[other],
    )
    cluster, checks = results(msgspec.structs.replace(job, placement=placement))
    assert_right(checks, *requests)
    plans = [one for plan in cluster.plans for one in plan.requests]
    assert [(one.local_tokens, one.remote_tokens) for one in plans] == [(0, 0), (0, 32), (32, 16), (32, 16)]


@pytest.mark.parametrize("units", [{"per_unit": 2, "decode_tp": 2}, {"per_unit": 2, "tp": 1, "decode_tp": 4}])
def test_the_ranks_of_a_decode_worker_put_their_heads_together(units: dict[str, int]) -> None:
    """KV of 64 tokens has 64 x 1,024 B in all."""
    cluster = Cluster(real_job(DENSE, REQUESTS, units=2, decode=4, **units))
    checks = cluster.serve()
    assert_right(checks, *REQUESTS)
    assert checks[3].kv_bytes == 65_536


def test_trees_reduce_to_the_same() -> None:
    job = real_job(DENSE, REQUESTS, units=2, per_unit=4)
    serving = msgspec.structs.replace(job.serving, all_reduce=CollectiveKind.TREE_ALL_REDUCE)
    _, checks = results(msgspec.structs.replace(job, serving=serving))
    assert_right(checks, *REQUESTS)


@pytest.mark.parametrize(("model", "tokens"), [(DENSE, 21), (MOE, 20)])
def test_a_prompt_may_be_computed_in_parts(model: ModelShape, tokens: int) -> None:
    """Parts of 21 tokens end inside of blocks of 8."""
    job = real_job(model, REQUESTS, units=2, per_unit=2)
    serving = msgspec.structs.replace(job.serving, chunk_tokens=tokens)
    cluster, checks = results(msgspec.structs.replace(job, serving=serving))
    assert_right(checks, *REQUESTS)
    parts = [one.new_tokens for plan in cluster.plans for one in plan.requests if one.request == 0]
    assert parts == [tokens, tokens, 48 - 2 * tokens]


def test_several_requests_of_a_batch_share_its_collectives() -> None:
    """At most 64 new tokens: 48, then 16 after a reused prefix with 36, then 24 after a reused prefix."""
    cluster = Cluster(real_job(DENSE, REQUESTS, units=1, per_unit=2))
    assert_right(cluster.serve_together(), *REQUESTS)
    assert [len(plan.requests) for plan in cluster.plans] == [1, 2, 1]


# --- what is noticed ----------------------------------------------------------------------------


def swapped(name: str) -> Cluster:
    """A cluster in which the keys of two blocks of a transfer change places on their way, in one head."""

    def spoil(transfer: str, content: torch.Tensor) -> torch.Tensor:
        if transfer != name:
            return content
        kv = content.clone().view(torch.float16).view(-1, 2, 2, 16)  # (tokens, 2, heads, d)
        kv[:16, 0, 0] = kv[:16, 0, 0].roll(8, dims=0)
        return kv.flatten().view(torch.uint8)

    return Cluster(real_job(DENSE, REQUESTS, units=2, per_unit=2), spoil)


def test_two_swapped_blocks_of_s3_are_noticed() -> None:
    """Only the key of one head in one layer is wrong for 16 of 48 tokens. Its request alone is wrong."""
    checks = swapped("p0.b0.r0.l3.s3.0-4").serve()
    assert checks[0].kv_error > 10 * KV_ERROR
    assert checks[0].logit_error > 10 * LOGIT_ERROR
    assert_right({number: checks[number] for number in (1, 2, 3)}, *REQUESTS[1:])


def test_two_swapped_blocks_of_s1_are_noticed_and_spoil_what_reuses_them() -> None:
    """Request 1 fetches blocks that request 3 finds at its unit later."""
    checks = swapped("p1.b0.r1.l1.s1.0-2").serve()
    assert checks[1].kv_error > 10 * KV_ERROR
    assert checks[3].kv_error > 10 * KV_ERROR
    assert_right({number: checks[number] for number in (0, 2)}, REQUESTS[0], REQUESTS[2])


def test_two_swapped_pages_are_noticed_by_the_comparison_of_kv_alone() -> None:
    """Attention does not ask in which order keys and values come: positions are in the keys already."""

    def swap(kv: KvStore, request: int) -> None:
        if request == 0:
            table = kv.table(request)
            table[1], table[2] = table[2], table[1]

    checks = Cluster(real_job(DENSE, REQUESTS, units=2, per_unit=2), spoil_tables=swap).serve()
    assert checks[0].kv_error > 10 * KV_ERROR
    assert checks[0].logit_error < LOGIT_ERROR
    assert_right({number: checks[number] for number in (1, 2, 3)}, *REQUESTS[1:])


def test_a_page_of_another_request_is_noticed_by_all_comparisons() -> None:
    def exchange(kv: KvStore, request: int) -> None:
        if request == 1:
            kv.open(99, Prompt(tokens=8, blocks=(), block_tokens=8))
            kv.table(request)[2] = kv.table(99)[0]

    checks = Cluster(real_job(DENSE, REQUESTS, units=2, per_unit=2), spoil_tables=exchange).serve()
    assert checks[1].kv_error == float("inf")  # nobody has written to the page since it was taken
    assert checks[1].logit_error == float("inf")
    assert_right({number: checks[number] for number in (0, 2, 3)}, FIRST, *REQUESTS[2:])


@pytest.mark.parametrize("units", [{"per_unit": 2}, {"per_unit": 4, "tp": 2, "sp": 2, "decode_tp": 2}])
def test_only_cached_blocks_have_pages_once_all_requests_are_over(units: dict[str, int]) -> None:
    """The prompts have 6 + 6 + 5 + 8 = 25 pages at most, and 6 + 6 + 4 + 8 full blocks.

    On the unit that serves requests 0 and 2, they fill 10 blocks. Requests 1 and 3 share the first four: the
    other unit has 10 distinct ones.
    """
    cluster, _ = results(real_job(DENSE, REQUESTS, units=2, decode=2, **units))
    decode = set(cluster.placement.decode)
    free = {rank: model.kv.free_pages for rank, model in cluster.ranks.items()}
    assert {free[rank] for rank in decode} == {25}
    assert {free[rank] for rank in free.keys() - decode} == {15}


def test_kv_may_arrive_before_its_plan() -> None:
    cluster = Cluster(real_job(DENSE, REQUESTS, units=2, per_unit=2), early=True)
    assert_right(cluster.serve(), *REQUESTS)


def test_kv_that_was_never_written_makes_the_errors_infinite() -> None:
    def lose(transfer: str, content: torch.Tensor) -> torch.Tensor:
        return torch.full((len(content) // 2,), torch.nan, dtype=torch.float16).view(torch.uint8)

    check = Cluster(real_job(DENSE, [FIRST], units=1, per_unit=2), lose).serve()[0]
    assert check.kv_error == float("inf")
    assert check.logit_error == float("inf")


def test_a_collective_that_does_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.Exchange, "all_reduce", lambda self, target: None)
    _, checks = results(real_job(DENSE, [FIRST], units=1, per_unit=2))
    assert checks[0].kv_error > 10 * KV_ERROR


def test_the_last_collective_of_a_prompt_shows_in_the_logits_of_its_prefill_unit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rank reduces twice in each of four layers. Nothing is sent after the eighth time."""
    reduces: Counter[int] = Counter()
    original = world.Exchange.all_reduce

    def all_but_the_last(self: Exchange, target: torch.Tensor) -> None:
        reduces[self.index] += 1
        if reduces[self.index] < 8:
            original(self, target)

    monkeypatch.setattr(world.Exchange, "all_reduce", all_but_the_last)
    _, checks = results(real_job(DENSE, [FIRST], units=1, per_unit=2))
    assert reduces == {0: 8, 1: 8}
    assert checks[0].kv_error < KV_ERROR
    assert checks[0].token == checks[0].expected_token
    assert checks[0].logit_error > 10 * LOGIT_ERROR


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others() -> None:
    job = real_job(DENSE, [FIRST], units=1, per_unit=2)
    assert results(job)[1] == results(job)[1]
    other = results(msgspec.structs.replace(job, seed=2))[1]
    assert other[0].token != results(job)[1][0].token
    assert_right(other, FIRST)
