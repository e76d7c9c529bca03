"""The scheduler remembers what is active, and nothing else.

Memory is counted, not sampled: the sizes of all objects that can be reached from the scheduler and its
policy. One flow runs at a time, so nothing is active at the end of a round.
"""

import gc
import sys
from itertools import cycle
from types import BuiltinFunctionType, FunctionType, ModuleType

import pytest

from controller.flow import Batch, BatchRequest, Flow, Level, Stage
from controller.overload import RequestControl
from controller.policies import make_policy, policy_names
from controller.scheduler import Scheduler

LINK = "h1->s1"
PORTS = {LINK: 10_000_000_000}
MANY = 100_000
WARM_UP = 1_560
"""Flows after which all windows of at most 512 values are full, also those that only S3 fills."""

BATCHES = 1_000
"""Eight bytes that are left per batch, such as a place in a list, are more than `SLACK_BYTES`."""

SLACK_BYTES = 4_096
"""Numbers in windows of at most 512 values grow by a few bytes as time goes on. One leaked id per flow
would be at least 50 bytes times the number of flows."""

FLOWS = [
    Flow(
        id=f"of {stage.value}",
        stage=stage,
        size_bytes=1_000_000,
        load={LINK: 1_000_000},
        deadline_ns=10**15 if stage is Stage.P2D else None,
    )
    for stage in Stage
]


def reachable_bytes(root: object) -> int:
    """The size of all objects that can be reached from `root`, without code."""
    code = (type, ModuleType, FunctionType, BuiltinFunctionType)
    seen, to_see, total = {id(root)}, [root], 0
    while to_see:
        one = to_see.pop()
        total += sys.getsizeof(one)
        for other in gc.get_referents(one):
            if id(other) not in seen and not isinstance(other, code):
                seen.add(id(other))
                to_see.append(other)
    return total


def submit_and_complete(scheduler: Scheduler, flows: int, start_ns: int) -> None:
    for now_ns, flow in zip(range(start_ns, start_ns + flows), cycle(FLOWS), strict=False):
        scheduler.submit(now_ns, flow)
        scheduler.completion(now_ns, flow.id)


@pytest.mark.parametrize("spec", ["fair", "mfs"])
def test_many_submits_and_completions_leave_no_trace(spec: str) -> None:
    """One leaked id per flow would be 5 MB."""
    scheduler = Scheduler(make_policy(spec), ports=PORTS)
    submit_and_complete(scheduler, WARM_UP, start_ns=10**12)
    before = reachable_bytes(scheduler)
    submit_and_complete(scheduler, MANY, start_ns=2 * 10**12)
    assert reachable_bytes(scheduler) - before <= SLACK_BYTES


def serve_batches(scheduler: Scheduler, batches: int, start_ns: int) -> None:
    """Each batch has two layers, with one S1, one S2 and one S3 flow each. No id is used twice."""
    for number in range(batches):
        now_ns = start_ns + number * 10_000_000
        batch = batch_at(now_ns)
        scheduler.batch_started(now_ns, batch)
        for layer in range(2):
            scheduler.layer_advanced(now_ns, batch.id, layer)
            for stage in Stage:
                flow = flow_of(batch, stage, layer, now_ns)
                scheduler.submit(now_ns, flow)
                scheduler.progress(now_ns + 1_000_000, flow.id, flow.size_bytes // 2)
                scheduler.tick(now_ns + 6_000_000)
                scheduler.completion(now_ns + 7_000_000, flow.id)
        scheduler.layer_advanced(now_ns + 8_000_000, batch.id, 2)


def batch_at(now_ns: int) -> Batch:
    request = BatchRequest(id=f"r{now_ns}", deadline_ns=now_ns + 20_000_000, load={LINK: 60_000_000})
    return Batch(id=f"b{now_ns}", layers=2, requests=(request,), load={LINK: 20_000_000})


def flow_of(batch: Batch, stage: Stage, layer: int, now_ns: int) -> Flow:
    size = (10 + now_ns // 10_000_000 % 17) * 1_000_000
    request = batch.requests[0]
    return Flow(
        id=f"{batch.id}.{layer}.{stage.value}",
        stage=stage,
        size_bytes=size,
        load={LINK: size},
        batch=batch.id,
        request=None if stage is Stage.COLLECTIVE else request.id,
        layer=layer,
        coflow=f"{batch.id}.{layer}" if stage is Stage.COLLECTIVE else None,
        deadline_ns=request.deadline_ns if stage is Stage.P2D else None,
        downstream_ns=1_000_000,
    )


@pytest.mark.parametrize("exact", [False, True], ids=["levels", "exact"])
@pytest.mark.parametrize("spec", policy_names())
def test_batches_that_have_departed_leave_no_trace(spec: str, exact: bool) -> None:
    """Six thousand flows, after the warm-up."""
    assert_no_trace(Scheduler(make_policy(spec), ports=PORTS, exact=exact))


def test_pruned_requests_leave_no_trace() -> None:
    """Each batch needs 80 MB of a link that carries 1.25 MB per ms, in 20 ms: its request is pruned."""
    control = RequestControl(drop_budget=1.0)
    scheduler = Scheduler(make_policy("mfs"), ports=PORTS, control=control)
    assert_no_trace(scheduler)
    scheduler.batch_started(10**13, batch_at(10**13))
    late = scheduler.submit(10**13, flow_of(batch_at(10**13), Stage.P2D, 0, 10**13))
    assert late[0].level is Level.SCAVENGER


def assert_no_trace(scheduler: Scheduler) -> None:
    serve_batches(scheduler, WARM_UP // 6, start_ns=10**12)
    before = reachable_bytes(scheduler)
    serve_batches(scheduler, BATCHES, start_ns=2 * 10**12)
    assert reachable_bytes(scheduler) - before <= SLACK_BYTES
