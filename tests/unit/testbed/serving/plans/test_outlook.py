"""What comes after each flow of a batch, worked out by hand in the tiny world."""

import msgspec
import pytest
from serving_world import job, placed, planned, prompt

from testbed.job import ReuseRule
from testbed.serving.cache.assignment import Assigned, Fetch
from testbed.serving.plans.batch_time import BatchTimes
from testbed.serving.plans.outlook import announced
from workers.plan import BatchPlan, Collective

S = 1_000_000_000

TOPOLOGY, PLACEMENT = placed()


def plan(fetches: tuple[Fetch, ...] = ()) -> BatchPlan:
    """One request of 8 tokens on replica 0 of unit p0, one block of 4 reused; decode on another server.

    Per layer: attention 4 x 160 + 16 x (4 x 4 + 10) = 1056 FLOPs, 2.112 s. Dispatch and combine 32 B
    between the two servers: 0.32 s each. Experts 4 x 2 x 192 / 2 = 768 FLOPs, 1.536 s. In all 4.288 s.
    S3: 8 tokens x 16 B = 128 B, 1.28 s.
    """
    item = Assigned(request=prompt(0, 8, (1,)), replica=0, local_blocks=0 if fetches else 1, fetches=fetches)
    return planned([item], TOPOLOGY, PLACEMENT)


def test_a_batch_takes_its_layers_one_after_the_other() -> None:
    """The two layers of `plan`."""
    item = Assigned(request=prompt(0, 8, (1,)), replica=0, local_blocks=1, fetches=())
    times = BatchTimes(job(TOPOLOGY, PLACEMENT))
    assert times.ns("p0", [item]) == pytest.approx(2 * 4.288e9)
    assert times.ns("p0", []) == 0


def test_an_even_batch_gives_the_largest_request_a_replica_of_its_own() -> None:
    """Requests of 8, 4 and 4 tokens on two replicas, all assigned to the first: 8 on each."""
    times = BatchTimes(job(TOPOLOGY, PLACEMENT))
    items = [
        Assigned(request=prompt(number, tokens), replica=0, local_blocks=0, fetches=())
        for number, tokens in enumerate((4, 8, 4))
    ]
    spread = [
        msgspec.structs.replace(item, replica=replica) for item, replica in zip(items, (1, 0, 1), strict=True)
    ]
    assert times.ns("p0", times.even("p0", items)) == times.ns("p0", spread) < times.ns("p0", items)


def test_requests_that_wait_stay_with_the_replica_that_has_their_prefix() -> None:
    """Three requests of 8 tokens, of which replica 0 of two has 4. Fetched, 4 are left anywhere.

    If it is computed again, elsewhere is 8. The first two stay, as 8 on replica 0 are at most 1.25 x 8. The
    third one would make 12 there, more than 1.25 x 8, so it goes to the other one.
    """
    made = job(TOPOLOGY, PLACEMENT)
    again = msgspec.structs.replace(
        made, serving=msgspec.structs.replace(made.serving, reuse=ReuseRule.RECOMPUTE)
    )
    first, second, third = (
        Assigned(request=prompt(number, 8, (1,)), replica=0, local_blocks=1, fetches=())
        for number in range(3)
    )
    times = BatchTimes(again)
    moved = msgspec.structs.replace(third, replica=1, local_blocks=0)
    assert times.waiting("p0", [first, second]) == [first, second]
    assert times.waiting("p0", [first, second, third]) == [first, second, moved]
    fetched = BatchTimes(made)
    assert fetched.waiting("p0", [first, second]) == [first, msgspec.structs.replace(second, replica=1)]


def test_after_a_collective_come_the_rest_of_its_layer_and_the_later_layers() -> None:
    """After dispatch: experts 1.536 and combine 0.32; after combine: nothing; before layer 1: 4.288 more."""
    for layer, later_s in ((0, 4.288), (1, 0.0)):
        _, dispatch, _, combine = plan().layers[layer].steps
        assert isinstance(dispatch, Collective)
        assert isinstance(combine, Collective)
        assert dispatch.downstream_ns == pytest.approx((1.856 + later_s) * S)
        assert combine.downstream_ns == pytest.approx(later_s * S)


def test_after_s1_comes_its_own_layer_too() -> None:
    layers = plan((Fetch(unit="p1", replica=0, blocks=1),)).layers
    assert [layer.wait[0].downstream_ns for layer in layers] == pytest.approx([8.576 * S, 4.288 * S])


def test_after_s3_come_the_transfers_of_later_layers_and_the_first_decode_step() -> None:
    made = plan()
    decode_s = made.requests[0].decode_step_s
    after = [layer.post[0].downstream_ns for layer in made.layers]
    assert after == pytest.approx([(1.28 + decode_s) * S, decode_s * S])


def test_a_batch_is_announced_with_what_it_will_put_on_every_port() -> None:
    """S1: 2 x 64 B from p1. S3: 2 x 128 B to the decode worker. Collectives, in each of 2 layers: dispatch
    sends 32 B from rank 0's server (rank 1 has no tokens), and combine brings 32 B back."""
    made = plan((Fetch(unit="p1", replica=0, blocks=1),))
    batch = announced(made, TOPOLOGY, PLACEMENT)
    home, other, victim, decode = (
        PLACEMENT.server_of(rank)
        for rank in (*PLACEMENT.units["p0"], PLACEMENT.units["p1"][0], PLACEMENT.decode[0])
    )
    assert batch.load == {
        f"{home}->s1": 64,
        f"s1->{other}": 64,
        f"{other}->s1": 64,
        f"s1->{home}": 64,
    }
    (request,) = batch.requests
    assert request.load == {
        f"{victim}->s1": 128,
        f"s1->{home}": 128,
        f"{home}->s1": 256,
        f"s1->{decode}": 256,
    }
    assert (request.id, request.deadline_ns) == ("0", made.requests[0].deadline_ns)
    assert request.tail_ns == pytest.approx((1.28 + made.requests[0].decode_step_s) * S)
    assert batch.compute_ns == pytest.approx(2 * (2.112 + 1.536) * S)


def test_a_plan_crosses_a_process_boundary_with_what_is_to_come() -> None:
    made = plan()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=BatchPlan) == made
