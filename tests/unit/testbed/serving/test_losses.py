"""Units and decode workers that are lost: where their requests go, and which fail. Nothing is forgotten."""

import msgspec
import pytest
from serving_world import job, placed, prompt

from testbed.faults import DecodeLoss, Fault, UnitLoss
from testbed.job import Job, Request
from testbed.record import RequestRow, RequestStatus
from testbed.serving.actions import Announce
from testbed.serving.conductor import ServingConductor
from workers.plan import BatchPlan

LOST = UnitLoss(unit="p0", from_ns=10, to_ns=None)
GONE = DecodeLoss(worker=0, from_ns=10, to_ns=None)


class World:
    """A conductor, and ranks that finish what they are told to when the test says so."""

    def __init__(self, *requests: Request, faults: tuple[Fault, ...], **placing: int) -> None:
        made: Job = job(*placed(servers=9, **placing))
        self.conductor = ServingConductor(msgspec.structs.replace(made, requests=requests, faults=faults))
        self.plans: dict[str, BatchPlan] = {}

    def act(self, now_ns: int) -> list[str]:
        """The batches that are formed."""
        return self._begin(self.conductor.act(now_ns))

    def _begin(self, actions: object) -> list[str]:
        formed = [action.batch.id for action in actions if isinstance(action, Announce)]  # type: ignore[attr-defined]
        for batch in formed:
            for action in self.conductor.known(batch):
                plan = getattr(action, "plan", None)
                if isinstance(plan, BatchPlan):
                    self.plans[batch] = plan
        return formed

    def end(self, now_ns: int, batch: str) -> list[str]:
        """All ranks have finished a batch. The batches that are formed then."""
        formed = []
        for rank in self.plans[batch].ranks:
            formed += self._begin(self.conductor.rank_done(now_ns, batch, rank, now_ns - 1, now_ns))
        return formed

    def token(self, now_ns: int, request: int) -> None:
        self.conductor.first_token(now_ns, request, now_ns)

    def of(self, batch: str) -> list[int]:
        return [item.request for item in self.plans[batch].requests]

    @property
    def rows(self) -> dict[int, RequestRow]:
        return {row.request: row for row in self.conductor.request_rows({}, ())}


def test_what_waits_on_a_lost_unit_goes_to_another_and_what_runs_there_fails() -> None:
    """Turn by turn: 0 and 2 on p0, 1 and 3 on p1. When p0 is lost, 0 runs and 2 waits."""
    world = World(*(prompt(i, 8, arrival_ns=i) for i in range(4)), faults=(LOST,))
    assert [world.act(i) for i in range(4)] == [["p0.b0"], ["p1.b0"], [], []]
    assert world.conductor.due_ns == 10
    assert world.act(10) == []
    assert world.rows[0].lost_to == "unit p0 lost from 1e-08 s on"
    assert world.rows[0].status is RequestStatus.FAILED
    assert world.rows[2].moved_by == ("unit p0 lost from 1e-08 s on",)
    assert world.end(20, "p1.b0") == ["p1.b1"]
    assert world.of("p1.b1") == [3, 2]
    assert world.conductor.done == 1


def test_the_run_ends_when_the_ghost_of_a_batch_is_over_too() -> None:
    world = World(prompt(0, 8), prompt(1, 8), faults=(LOST,))
    world.act(0)
    world.act(10)
    world.end(11, "p1.b0")
    world.token(12, 1)
    assert world.conductor.done == world.conductor.total == 2
    assert not world.conductor.finished
    assert world.end(20, "p0.b0") == []
    assert not world.conductor.finished  # its S3 is still on the wire
    world.token(21, 0)
    assert world.conductor.finished
    assert world.rows[0].first_token_ns is None
    assert world.rows[1].status is RequestStatus.COMPLETED


def test_a_lost_unit_gets_no_request_until_it_is_back_and_its_cache_is_empty_then() -> None:
    """Both prompts of two blocks run on p0: the second finds nothing of the first, which p0 has lost. Before
    it, another one has made p1 busy."""
    back = UnitLoss(unit="p0", from_ns=10, to_ns=30)
    prompts = [prompt(0, 9, (1, 2)), prompt(1, 8, arrival_ns=15), prompt(2, 8, arrival_ns=40)]
    world = World(*prompts, prompt(3, 9, (1, 2), arrival_ns=41), faults=(back,))
    world.act(0)
    world.end(5, "p0.b0")
    world.token(6, 0)
    world.act(10)
    assert world.act(15) == ["p1.b0"]
    assert world.end(20, "p1.b0") == []
    world.act(30)
    assert world.act(40) == ["p1.b1"]
    assert world.act(41) == ["p0.b1"]
    (item,) = world.plans["p0.b1"].requests
    assert (item.new_tokens, item.local_tokens, item.remote_tokens) == (9, 0, 0)


def test_what_had_been_prefilled_on_a_lost_unit_still_gets_its_first_token() -> None:
    world = World(prompt(0, 8), faults=(LOST,))
    world.act(0)
    world.end(5, "p0.b0")
    world.act(10)
    world.token(12, 0)
    assert world.rows[0].status is RequestStatus.COMPLETED


def test_requests_of_a_lost_decode_worker_fail_unless_they_have_their_first_token() -> None:
    """Turn by turn: 0 and 2 decode on worker 0, 1 and 3 on worker 1. 0 has its first token, 3 waits."""
    world = World(*(prompt(i, 8, arrival_ns=i) for i in range(4)), faults=(GONE,), units=3, decode=2)
    assert [world.act(i) for i in range(4)] == [["p0.b0"], ["p1.b0"], ["p2.b0"], []]
    world.token(9, 0)
    world.act(10)
    rows = world.rows
    assert [rows[i].lost_to is not None for i in range(4)] == [False, False, True, False]
    assert rows[2].lost_to == "decode worker 0 lost from 1e-08 s on"
    (later,) = world.end(20, "p0.b0")
    ranks = {
        i: world.plans[batch].requests[0].decode_ranks
        for batch, i in (("p0.b0", 0), ("p1.b0", 1), (later, 3))
    }
    assert ranks[3] == ranks[1] != ranks[0]


@pytest.mark.parametrize("fault", [LOST, GONE])
def test_every_request_ends_once(fault: Fault) -> None:
    world = World(*(prompt(i, 8, arrival_ns=4 * i) for i in range(8)), faults=(fault,), decode=2)
    running: list[str] = []
    for now in range(0, 100, 4):
        running += world.act(now)
        if now >= 12 and running:
            batch = running.pop(0)
            running += world.end(now, batch)
            for request in world.of(batch):
                world.token(now, request)
    assert world.conductor.finished
    ended = [row.first_token_ns is not None or row.lost_to is not None for row in world.rows.values()]
    assert ended == [True] * 8
    assert any(row.lost_to for row in world.rows.values())
