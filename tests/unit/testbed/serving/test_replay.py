"""The batches of a run, formed again from its events, and run by a fabric."""

import msgspec
import pytest
from serving_world import job, placed, prompt

from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job
from testbed.record import RunRecord
from testbed.serving.replay import NotReplayable, PlannedBatches, plans_of
from testbed.serving.system import ServingSystem

SETTINGS = ("fabric=sim", 'policies=["fair"]', "workload.requests=8", "workload.load=1.5")


def few() -> Job:
    return resolve(load_scenario("quickstart", [override(text) for text in SETTINGS])).jobs[0]


def played(job: Job) -> RunRecord:
    return FABRICS["sim"]().run(job, lambda progress: None)


def test_a_run_that_follows_its_own_batches_is_the_same_run() -> None:
    made = few()
    record = played(made)
    again = played(msgspec.structs.replace(made, plans=plans_of(made, record.requests)))
    assert list(again.flows) == list(record.flows)
    assert again.requests == record.requests


def test_other_links_follow_the_same_batches() -> None:
    """Links at a tenth of the rate would lead to other batches; with the plans, every flow is there."""
    made = few()
    record = played(made)
    slow = resolve(
        load_scenario("quickstart", [override(t) for t in (*SETTINGS, "topology.nic_gbps=5")])
    ).jobs[0]
    plans = plans_of(made, record.requests)
    followed = played(msgspec.structs.replace(slow, requests=made.requests, plans=plans))
    assert {(f.id, f.size_bytes) for f in followed.flows} == {(f.id, f.size_bytes) for f in record.flows}
    assert {row.request: row.batch for row in followed.requests} == {
        row.request: row.batch for row in record.requests
    }


def test_a_planned_batch_waits_for_its_requests_and_for_its_unit() -> None:
    topology, placement = placed(units=1)
    system = ServingSystem(job(topology, placement))
    first, second, third = (prompt(i, 8) for i in range(3))
    [one] = system.arrive(0, first)
    assert system.arrive(1, second) == system.arrive(2, third) == []
    [two] = system.batch_done(3, one.id)

    followed = PlannedBatches([one, two])
    assert followed.arrive(0, second) == []  # the first batch still lacks its request
    assert followed.arrive(0, first) == [one]
    assert followed.batch_done(5, one.id) == []  # the second batch still lacks a request
    assert followed.arrive(6, third) == [two]
    with pytest.raises(ValueError, match="not running"):
        followed.batch_done(7, one.id)


def test_events_that_do_not_give_the_batches_of_the_run_are_refused() -> None:
    made = few()
    rows = list(played(made).requests)
    later = msgspec.structs.replace(rows[3], new_tokens=rows[3].new_tokens + 1)
    with pytest.raises(NotReplayable, match=f"request {later.request} ran in batch"):
        plans_of(made, [*rows[:3], later, *rows[4:]])
    unfinished = msgspec.structs.replace(rows[0], first_token_ns=None)
    with pytest.raises(NotReplayable, match="was not completed"):
        plans_of(made, [unfinished, *rows[1:]])


def test_a_job_with_plans_crosses_a_process_boundary() -> None:
    made = few()
    with_plans = msgspec.structs.replace(made, plans=plans_of(made, played(made).requests))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(with_plans), type=Job) == with_plans
