"""Whole runs on the simulated fabric: the micro workload to the nanosecond, serving by its invariants."""

import itertools
from typing import Any

import msgspec
import pytest

from controller.flow import Stage
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.record import RunRecord

S = 10**9


def played(scenario: str, policy: str, *settings: str) -> RunRecord:
    texts = [f'policies=["{policy}"]', "fabric=sim", *settings]
    job = resolve(load_scenario(scenario, [override(text) for text in texts])).jobs[0]
    return FABRICS["sim"]().run(job, lambda progress: None)


def flows(*rows: dict[str, Any]) -> str:
    return "workload.flows=" + msgspec.json.encode(rows).decode()


# --- micro ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "fetch_s", "deliver_s"), [("fair", 2, 2), ("stage", 1, 2), ("mfs", 2, 1), ("sjf", 2, 2)]
)
def test_two_flows_into_one_server_to_the_nanosecond(policy: str, fetch_s: int, deliver_s: int) -> None:
    """1.25 GB each at 10 Gb/s: 1 s alone. One after the other or, shared, both at 2 s. `mfs`: the S3
    flow is due at 1.1 s, MLU 0.91, P1. `sjf`: equal sizes share."""
    ends = {row.id: row.finish_ns for row in played("two-flows", policy).flows}
    assert ends == {"fetch": fetch_s * S, "deliver": deliver_s * S}


def test_eight_senders_into_one_server_take_eight_times_as_long() -> None:
    """8 x 20 MB = 1,280 Mbit at 100 Gb/s: 12.8 ms for each of them."""
    rows = [
        {"id": f"f{i}", "src": f"h{i}", "dst": "h9", "bytes": 20_000_000, "start_s": 0, "stage": "S2"}
        for i in range(1, 9)
    ]
    record = played("two-flows", "fair", "topology.servers=9", "topology.nic_gbps=100", flows(*rows))
    assert {row.finish_ns for row in record.flows} == {12_800_000}


def test_the_layers_of_a_micro_batch_promote_what_is_needed_later() -> None:
    """S1 of layer 1 starts one level below that of layer 0; when layer 0 is through it is at RLI 0."""
    common = {"dst": "h3", "bytes": 125_000_000, "start_s": 0, "stage": "S1", "batch": "b"}
    record = played(
        "two-flows",
        "mfs",
        flows(
            {"id": "l0", "src": "h1", "layer": 0, **common}, {"id": "l1", "src": "h2", "layer": 1, **common}
        ),
    )
    levels = [(d.flow, d.level_to.name) for d in record.decisions]
    assert levels == [("l0", "P2"), ("l1", "P3"), ("l1", "P2")]
    assert {row.id: row.finish_ns for row in record.flows} == {"l0": S // 10, "l1": S // 5}


# --- serving ----------------------------------------------------------------------------------------

FEW = ("workload.requests=12", "workload.load=0.5")


@pytest.mark.parametrize(
    "policy", ["fair", "fifo", "sjf", "edf", "karuna", "pias", "sebf", "aalo", "llf", "mfs", "mfs+requests"]
)
@pytest.mark.parametrize("order", ["levels", "exact", "hybrid"])
def test_every_request_is_served_and_no_law_broken(policy: str, order: str) -> None:
    record = played("quickstart", policy, f"simulation.order={order}", *FEW)
    assert [row.status for row in record.requests] == ["completed"] * 12
    assert [check.name for check in record.fidelity.checks if not check.ok] == []
    assert record.order == order


@pytest.mark.parametrize("settings", [(), ("topology.kind=leaf-spine", "topology.oversubscription=2")])
def test_two_runs_of_one_job_are_equal(settings: tuple[str, ...]) -> None:
    one, two = (played("quickstart", "mfs", *FEW, *settings) for _ in range(2))
    assert msgspec.structs.replace(one, wall_s=0.0) == msgspec.structs.replace(two, wall_s=0.0)


def test_a_request_alone_takes_its_unloaded_ttft() -> None:
    [row] = played("quickstart", "mfs", "workload.requests=1").requests
    assert row.ttft_ns == pytest.approx(row.unloaded_ttft_ns, rel=0.01)


def test_a_dense_model_reduces_all_its_ranks_together() -> None:
    """Ranks of a tensor-parallel group leave an all-reduce at the same moment."""
    record = played("quickstart", "fair", "workload.requests=2", "model=llama-3-8b", "units.tp=4")
    ends: dict[tuple[str | None, int | None, str], set[int]] = {}
    for span in record.spans:
        if span.kind == "collective":
            ends.setdefault((span.batch, span.layer, span.label), set()).add(span.end_ns)
    assert ends
    assert all(len(moments) == 1 for moments in ends.values())


def test_no_pair_of_ranks_sends_more_at_once_than_it_has_lanes() -> None:
    record = played("quickstart", "mfs", *FEW, "workers.lanes_s3=1")
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row in record.flows:
        if row.stage is Stage.P2D:
            pairs.setdefault((row.src, row.dst), []).append((row.permit_ns, row.finish_ns))
    for times in pairs.values():
        times.sort()
        assert all(start >= end for (_, end), (start, _) in itertools.pairwise(times))


def test_without_lanes_no_flow_waits() -> None:
    record = played("quickstart", "mfs", *FEW, "simulation.lanes=false")
    assert {row.lane_wait_ns for row in record.flows} == {0}


def test_paced_flows_arrive_at_their_deadline_and_not_a_hair_later() -> None:
    """karuna aims at the exact nanosecond; alone, every request must be in time."""
    [row] = played("quickstart", "karuna", "simulation.order=exact", "workload.requests=1").requests
    assert row.ttft_ns is not None
    assert 0.9 * row.slo_ns <= row.ttft_ns <= row.slo_ns


def test_requests_that_were_pruned_are_told_from_those_that_were_not() -> None:
    """Decisions have the reason of every move to SCAVENGER, so they tell which requests were pruned."""
    record = played("quickstart", "fair + requests", "workload.load=3.5", "workload.requests=40")
    of_request = {row.id: row.request for row in record.flows if row.request is not None}
    moved = {
        of_request[row.flow]
        for row in record.decisions
        if row.flow in of_request and row.reason.startswith("pruned:")
    }
    pruned = {row.request for row in record.requests if row.times_pruned}
    assert moved
    assert moved <= pruned  # one may be pruned and freed while none of its flows is on its way
    assert {row.request for row in record.requests if row.ended_pruned} <= pruned
    assert not any(row.times_pruned for row in played("quickstart", "fair", "workload.requests=8").requests)
