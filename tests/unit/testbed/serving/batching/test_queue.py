"""Which request of a prefill queue comes next, with request control and without."""

import msgspec
import pytest
from serving_world import batches_of, job, placed, prompt

from controller.overload import QueueOrder, RequestControl
from testbed.job import Request
from testbed.serving.batching.forming import by_deadline, standing, token_ns

FCFS = RequestControl(order=QueueOrder.FCFS)


def waiting(number: int, due_ns: int, *, unloaded_ns: int = 0, arrival_ns: int = 0) -> Request:
    """A request of 8 tokens; two of them fill a batch."""
    request = prompt(number, 8, arrival_ns=arrival_ns, slo_ns=due_ns - arrival_ns)
    return msgspec.structs.replace(request, unloaded_ns=unloaded_ns)


def behind(queue: list[Request], *, now_ns: int = 0, most: int = 99) -> list[int]:
    """The ids of the requests in time, given up and lost, if each takes the unit 10 ns."""
    three = standing(queue, now_ns=now_ns, unit_ns=lambda _: 10.0, most=most)
    return [request.id for each in three for request in each]


def batches(control: RequestControl | None, *queue: Request, now_ns: int = 1) -> list[list[int]]:
    topology, placement = placed(units=1)
    return batches_of(
        msgspec.structs.replace(job(topology, placement), control=control), *queue, now_ns=now_ns
    )


def test_the_earliest_deadline_is_first_ties_by_arrival_then_id() -> None:
    queue = [
        waiting(4, 50),
        waiting(3, 40, arrival_ns=2),
        waiting(2, 40, arrival_ns=1),
        waiting(1, 40, arrival_ns=1),
    ]
    assert [request.id for request in by_deadline(queue)] == [1, 2, 3, 4]


def test_who_would_be_late_behind_the_others_lets_them_pass() -> None:
    """Turns at 0, 10, 20. The second is served from 10 and due at 30, but needs 25. Without it the third
    has its turn at 10 and ends at 15, in time."""
    queue = [waiting(1, 20), waiting(2, 30, unloaded_ns=25), waiting(3, 15, unloaded_ns=5)]
    assert behind(queue) == [1, 3, 2]


def test_one_in_time_to_the_nanosecond_keeps_its_place() -> None:
    """The turn of the second is at 10, it needs 20 and is due at 30."""
    queue = [waiting(1, 20), waiting(2, 30, unloaded_ns=20), waiting(3, 99)]
    assert behind(queue) == [1, 2, 3]


def test_the_budget_bounds_how_many_are_given_up() -> None:
    """All take 10 ns and are due at 5, 5, 5 and 100: the first turn is in time, those at 10 are not."""
    queue = [waiting(number, 5) for number in (1, 2, 3)] + [waiting(4, 100)]
    assert behind(queue, most=2) == [1, 4, 2, 3]
    assert behind(queue, most=1) == [1, 3, 4, 2]
    assert behind(queue, most=0) == [1, 2, 3, 4]


def test_who_is_lost_already_goes_to_the_very_end_whatever_the_budget() -> None:
    """At 50: 1 is past its deadline, 2 ends at 60 but is due at 55, 4 would end at 75 but is due at 70."""
    queue = [
        waiting(1, 40),
        waiting(2, 55, unloaded_ns=10),
        waiting(3, 65, unloaded_ns=10),
        waiting(4, 70, unloaded_ns=15),
    ]
    assert behind(queue, now_ns=50, most=0) == [3, 4, 1, 2]
    assert behind(queue, now_ns=50, most=1) == [3, 4, 1, 2]


def test_given_up_comes_before_lost() -> None:
    queue = [waiting(1, 0, unloaded_ns=1), waiting(2, 20), waiting(3, 25, unloaded_ns=20), waiting(4, 90)]
    assert behind(queue) == [2, 4, 3, 1]


def test_a_token_takes_the_compute_and_collectives_of_a_full_batch() -> None:
    """16 tokens, 8 on each of 2 replicas, 500 FLOP/s. Attention: 8 x 160 FLOPs, 2.56 s. Experts: 16 x 2
    visits on 2 ranks, 16 x 192 FLOPs each, 6.144 s. All-to-all: each rank sends half of 8 x 16 B to the
    other, 64 B at 100 B/s, 0.64 s, twice. A layer takes 9.984 s, two 19.968 s: 1.248 s per token."""
    topology, placement = placed(units=1)
    assert token_ns(job(topology, placement), "p0") == pytest.approx(1.248e9)


def test_without_control_the_queue_is_first_come_first_served() -> None:
    queue = [waiting(number, due_ns) for number, due_ns in ((1, 400), (2, 0), (3, 100), (4, 200))]
    assert batches(None, *queue) == batches(FCFS, *queue) == [[1, 2], [3, 4]]


def test_with_control_a_unit_takes_the_earliest_deadlines_first() -> None:
    queue = [waiting(number, due_ns) for number, due_ns in ((1, 400), (2, 300), (3, 100), (4, 200))]
    assert batches(RequestControl(prune=False), *queue) == [[3, 4], [2, 1]]


def test_a_lost_request_is_served_last_but_served() -> None:
    """At 150 ns the request due at 100 is lost. A turn takes 8 x 1.248 s: the others have time."""
    day = 10**14
    queue = [waiting(1, 2 * day), waiting(2, 3 * day), waiting(3, 100), waiting(4, day)]
    assert batches(RequestControl(), *queue, now_ns=150) == [[4, 1], [2, 3]]
    assert batches(RequestControl(prune=False), *queue, now_ns=150) == [[3, 4], [1, 2]]


def test_up_to_its_share_of_the_queue_is_given_up() -> None:
    """A turn takes 9.984 s. Of four requests due at 5 s, the first has its turn at 1 ns. A budget of 0.3
    of 4 gives up one of the others, 0.5 two."""
    queue = [waiting(number, 5 * 10**9) for number in (1, 2, 3, 4)]
    assert batches(RequestControl(), *queue)[0] == [1, 3]
    assert batches(RequestControl(drop_budget=0.5), *queue)[0] == [1, 4]
