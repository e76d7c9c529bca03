"""What is left of a job after the loss of ranks."""

import pytest
from serving_world import job, placed

from testbed.cluster.assignment import assign
from testbed.cluster.elastic import absent, in_words, still_there, without
from testbed.cluster.inventory import Coordinator, Inventory, Server
from testbed.faults import DecodeLoss, UnitLoss
from testbed.job import Job


def serving_job(decode: int = 2) -> Job:
    """Units p0 and p1 of two ranks on h1 to h4, and decode workers of a rank each from h5 on."""
    return job(*placed(decode=decode, servers=4 + decode))


def left(made: Job, *ranks: int) -> Job:
    found = without(made, ranks)
    assert found is not None
    return found


def test_the_unit_of_a_rank_is_lost_from_the_start() -> None:
    found = left(serving_job(), 3)
    assert found.faults == (UnitLoss(unit="p1", from_ns=0, to_ns=None),)
    assert absent(found) == {2, 3}
    assert in_words(found) == "unit p1"


def test_a_second_loss_comes_after_the_first() -> None:
    found = left(left(serving_job(), 2, 3), 4)
    assert found.faults == (
        UnitLoss(unit="p1", from_ns=0, to_ns=None),
        DecodeLoss(worker=0, from_ns=0, to_ns=None),
    )
    assert absent(found) == {2, 3, 4}
    assert in_words(found) == "unit p1, decode worker 0"


@pytest.mark.parametrize(
    ("decode", "ranks"),
    [(2, ()), (2, (0, 2)), (1, (4,)), (2, (4, 5))],
    ids=["nobody", "all units", "the only decode worker", "all decode workers"],
)
def test_nothing_is_left_without_a_unit_or_a_decode_worker(decode: int, ranks: tuple[int, ...]) -> None:
    assert without(serving_job(decode), ranks) is None


def test_what_is_lost_already_is_not_lost_again() -> None:
    assert without(left(serving_job(), 2), (3,)) is None


def test_servers_without_ranks_are_not_used() -> None:
    machines = tuple(Server(host=f"node{i}", address=f"192.168.1.{i}", nic="eth1") for i in range(1, 7))
    made = serving_job()
    inventory = Inventory(coordinator=Coordinator(address="10.1.0.1"), servers=machines, keys="keys")
    found = still_there(assign(made, inventory), left(made, 2))
    assert found.places == {rank: (f"node{rank + 1}", 0) for rank in (0, 1, 4, 5)}
    assert list(found.machines) == ["h1", "h2", "h5", "h6"]
