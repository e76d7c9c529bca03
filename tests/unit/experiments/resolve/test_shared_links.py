"""Where no link carries two stages, their order cannot matter, and a note says so."""

import pytest

from experiments.resolve.jobs import resolve
from experiments.resolve.shared_links import shared_links_notes
from experiments.resolve.work_demand import demand
from experiments.scenario.reading import load_scenario, override
from testbed.job import Job


def job(scenario: str, *settings: str) -> Job:
    texts = ("fabric=sim", "workload.requests=20", *settings)
    return resolve(load_scenario(scenario, [override(text) for text in texts])).jobs[0]


def notes(of: Job) -> list[str]:
    return [*shared_links_notes(demand(of, of.requests))]


SPREAD_ON_RAILS = ("units.layout=spread", "units.ranks_per_unit=4", "units.decode_ranks=4")


def test_ranks_that_are_spread_over_rails_have_s2_and_s3_on_different_rails() -> None:
    """A unit of 4 ranks has GPU 0, or GPU 1, of each of 4 servers, so its collectives stay on one rail. S3
    changes to the rail of the decode GPU, number 2, inside the sending server. S1 to the other unit meets
    that unit's collectives."""
    [told] = notes(job("rail-optimised", *SPREAD_ON_RAILS, "units.prefill_units=2"))
    assert told.startswith("S2 and S3 share no link: which of the two goes first cannot matter")


def test_with_one_unit_no_link_carries_two_stages() -> None:
    """A unit of one replica on all four GPUs fetches nothing from others."""
    one = job("rail-optimised", *SPREAD_ON_RAILS, "units.prefill_units=1", "model=llama-3-8b", "units.tp=4")
    [told] = notes(one)
    assert told.startswith("S2 and S3 share no link: the order of stages cannot matter, policies can differ")


def test_a_unit_inside_a_server_without_a_network_in_it_has_no_s2_on_links() -> None:
    inside = job("quickstart", "units.layout=packed", "units.ranks_per_server=4", "topology.servers=3")
    [told] = notes(inside)
    assert told.startswith("S2 crosses no link")


@pytest.mark.parametrize("scenario", ["quickstart", "rail-optimised", "fat-tree"])
def test_where_stages_meet_there_is_no_note(scenario: str) -> None:
    assert not notes(job(scenario))


def test_single_flows_have_no_stages_to_meet() -> None:
    told = resolve(load_scenario("two-flows", [override("fabric=sim")])).warnings
    assert not [warning for warning in told if "share no link" in warning]
