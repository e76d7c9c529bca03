"""Which KV a transfer carries: worked out by hand for ranks that divide heads and layers differently."""

import msgspec
import pytest
from real_world import DENSE, real_job, request

from controller.flow import Stage, Transfer
from testbed.coordinator.real_model import real_model
from testbed.serving.system import ServingSystem
from workers.model.manifest import KvPiece, piece_of, pieces_of
from workers.model.setup import RealModel, WrongSize
from workers.plan import BatchPlan, Fetched, RequestPlan

PLAN = RequestPlan(
    request=7,
    replica=(2, 3),
    decode_ranks=(8,),
    new_tokens=10,
    local_tokens=8,
    remote_tokens=16,
    p2d_flows=(8,),
    decode_step_s=0.0,
    deadline_ns=0,
    fetched=(Fetched(ranks=(0, 1), spans=((0, 8), (16, 24))),),
)


def model() -> RealModel:
    """Two units of two tensor-parallel ranks, and decode rank 4. A head has 64 B per token."""
    made = real_model(real_job(DENSE, [request(7, 34, ())], units=2, per_unit=2))
    assert made is not None
    return made


def transfer(stage: Stage, src: int, dst: int, size_bytes: int) -> Transfer:
    return Transfer(
        id="f", stage=stage, src=src, dst=dst, size_bytes=size_bytes, batch="p1.b0", request=7, layer=3
    )


def test_s1_carries_the_tokens_that_its_sender_has_and_the_heads_of_both_ends() -> None:
    """Rank 1 and rank 3 have heads 2 and 3 of 4: 16 tokens x 2 heads x 64 B."""
    piece = piece_of(transfer(Stage.KV_REUSE, 1, 3, 2048), PLAN, model())
    assert piece == KvPiece(7, 3, (range(8), range(16, 24)), range(2, 4))


def test_s3_carries_all_tokens_so_far_to_a_rank_that_has_all_heads() -> None:
    """34 tokens x 2 heads x 64 B."""
    piece = piece_of(transfer(Stage.P2D, 2, 4, 4352), PLAN, model())
    assert piece == KvPiece(7, 3, (range(34),), range(2))


def test_s3_of_a_later_part_carries_the_tokens_of_that_part() -> None:
    later = msgspec.structs.replace(PLAN, local_tokens=24, remote_tokens=0, earlier_tokens=24, fetched=())
    assert piece_of(transfer(Stage.P2D, 2, 4, 1280), later, model()).places == (range(24, 34),)


def test_a_planned_size_that_is_not_that_of_the_tensors_is_an_error() -> None:
    with pytest.raises(
        WrongSize, match="f is planned with 4351 B; its KV of 34 tokens and 2 heads has 4352 B"
    ):
        piece_of(transfer(Stage.P2D, 2, 4, 4351), PLAN, model())


def test_a_rank_finds_its_own_transfers_in_a_plan() -> None:
    job = real_job(DENSE, [request(0, 20, ())], units=2, per_unit=2)
    made = real_model(job)
    assert made is not None
    (plan,) = ServingSystem(job).arrive(0, job.requests[0])
    assert isinstance(plan, BatchPlan)
    assert [t.id for t, _ in pieces_of(plan, 0, made)] == [f"p0.b0.r0.l{layer}.s3.0-4" for layer in range(4)]
    assert len(list(pieces_of(plan, 4, made))) == 8
    assert list(pieces_of(plan, 2, made)) == []
