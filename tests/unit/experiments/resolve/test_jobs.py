"""From a scenario to jobs."""

import pytest

from controller.flow import Stage
from experiments.errors import UserError
from experiments.resolve.jobs import Resolved, resolve
from experiments.scenario.reading import load_scenario, override
from testbed.job import Role


def resolved(name: str, *settings: str) -> Resolved:
    return resolve(load_scenario(name, [override(text) for text in settings]))


def test_each_policy_gets_the_same_work() -> None:
    fair, mfs = resolved("quickstart").jobs

    assert (fair.policy, mfs.policy) == ("fair", "mfs")
    assert fair.requests == mfs.requests
    assert fair.placement == mfs.placement


def test_the_quickstart_has_ranks_on_at_least_eight_servers() -> None:
    """2 units of 4 ranks and 2 decode workers are 10 ranks, spread over 10 servers, one each."""
    job = resolved("quickstart").jobs[0]

    assert len(job.placement.ranks) == 10
    assert len({rank.server for rank in job.placement.ranks}) == 10
    assert len(job.requests) == 48


def test_units_in_the_file_become_units_in_the_job() -> None:
    job = resolved(
        "quickstart",
        "topology.nic_gbps=12.5",
        "scheduler.recheck_ms=2.5",
        "workers.chunk_kib=64",
    ).jobs[0]

    assert {link.bps for link in job.topology.links} == {12_500_000_000}
    assert job.scheduler.recheck_ns == 2_500_000
    assert job.workers.chunk_bytes == 65_536


def test_an_absolute_slo_of_a_class_holds_for_its_requests() -> None:
    job = resolved("quickstart", "slo.classes={gold: {absolute_s: 0.25}}", "workload.class=gold").jobs[0]

    assert {request.slo_ns for request in job.requests} == {250_000_000}


def test_a_relative_slo_multiplies_the_unloaded_ttft() -> None:
    job = resolved("quickstart", "slo.multiple=2").jobs[0]

    assert all(request.slo_ns == 2 * request.unloaded_ns > 0 for request in job.requests)


def test_the_same_seed_gives_the_same_requests_and_another_gives_others() -> None:
    assert resolved("quickstart", "seed=3").jobs == resolved("quickstart", "seed=3").jobs
    assert (
        resolved("quickstart", "seed=3").jobs[0].requests != resolved("quickstart", "seed=4").jobs[0].requests
    )


def test_twice_the_load_takes_half_the_time() -> None:
    low = resolved("quickstart", "workload.load=0.4").jobs[0].requests[-1].arrival_ns
    high = resolved("quickstart", "workload.load=0.8").jobs[0].requests[-1].arrival_ns

    assert low == pytest.approx(2 * high, abs=2)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("units.tp=3", "scenario quickstart: units.tp: a unit's 4 ranks do not divide"),
        (
            "units.ranks_per_unit=40",
            "units.ep: the 8 experts of mixtral-8x7b do not divide by 40; ep can be 1, 2, 4, 8; it is null,"
            " which means a unit's 40 ranks",
        ),
        ("units.ep=3", "units.ep: a unit's 4 ranks do not divide into groups of 3"),
    ],
)
def test_ranks_that_cannot_be_placed_are_refused_by_key(setting: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        resolved("quickstart", setting)

    assert told in str(caught.value)


def test_micro_flows_run_between_endpoints_one_per_server() -> None:
    job = resolved("two-flows").jobs[0]

    assert [spec.role for spec in job.placement.ranks] == [Role.ENDPOINT] * 3
    assert [spec.server for spec in job.placement.ranks] == ["h1", "h2", "h3"]
    fetch, deliver = (flow.transfer for flow in job.flows)
    assert (fetch.src, fetch.dst, fetch.stage, fetch.deadline_ns) == (0, 2, Stage.KV_REUSE, None)
    assert (deliver.src, deliver.dst, deliver.stage) == (1, 2, Stage.P2D)
    assert deliver.deadline_ns == 1_100_000_000
    assert job.requests == ()


def test_micro_flows_are_in_order_of_their_start() -> None:
    flows = "[{id: late, src: h1, dst: h2, bytes: 1, start_s: 0.5}, {id: early, src: h2, dst: h1, bytes: 1}]"

    job = resolved("two-flows", f"workload.flows={flows}").jobs[0]

    assert [(flow.transfer.id, flow.start_ns) for flow in job.flows] == [
        ("early", 0),
        ("late", 500_000_000),
    ]


def test_a_leaf_spine_has_the_uplinks_its_oversubscription_leaves() -> None:
    """5 servers of 50 Gb/s below a leaf, 2 spines, 2:1: 5 * 50 / (2 * 2) = 62.5 Gb/s per uplink."""
    topology = resolved("leaf-spine").jobs[0].topology

    assert topology.link("leaf1->spine1").bps == 62_500_000_000
    assert len(topology.servers) == 10
