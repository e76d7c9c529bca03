"""The flow sets of `mfs bench sim --against`."""

import msgspec
import pytest

from experiments.bench.flow_sets import NIC_BPS, PACKET_BYTES, SETS, SetCase, chosen_sets, draw
from experiments.errors import UserError

FEW = [msgspec.structs.replace(case, flows=min(case.flows, 1_000)) for case in SETS]


@pytest.mark.parametrize("case", FEW, ids=lambda case: case.name)
def test_flows_start_in_order_and_every_pair_of_hosts_keeps_its_path(case: SetCase) -> None:
    flow_set = draw(case, 1)
    assert len(flow_set.flows) == case.flows
    starts = [flow.start_ns for flow in flow_set.flows]
    assert starts == sorted(starts)
    paths: dict[tuple[str, str], tuple[str, ...]] = {}
    for flow in flow_set.flows:
        assert flow.path == paths.setdefault((flow.src, flow.dst), flow.path)
        assert flow.path[0].startswith(f"{flow.src}->")
        assert flow.path[-1].endswith(f"->{flow.dst}")
        assert flow.src != flow.dst
        assert flow.size_bytes % PACKET_BYTES == 0
        assert flow.size_bytes > 0
        assert set(flow.path) <= set(flow_set.bps)


@pytest.mark.parametrize("case", [*FEW, *SETS[:1]], ids=lambda case: f"{case.name}, {case.flows}")
def test_the_flows_offer_the_load_of_the_case(case: SetCase) -> None:
    """1,000 exponential gaps have a mean within 15 % of the drawn one, in all but one of 10^5 seeds."""
    flow_set = draw(case, 1)
    offered = sum(flow.size_bytes for flow in flow_set.flows) * 8e9 / flow_set.flows[-1].start_ns
    nics = (case.receivers or case.hosts) * NIC_BPS
    assert offered / nics == pytest.approx(case.load, rel=0.15 if case.flows >= 1_000 else 0.3)


def test_equal_seeds_give_equal_flows_and_others_do_not() -> None:
    case = msgspec.structs.replace(SETS[0], flows=50)
    assert draw(case, 1) == draw(case, 1)
    assert draw(case, 1) != draw(case, 2)


def test_in_the_incast_no_two_flows_share_a_sender() -> None:
    """ns.py has no flow control, so a flow that shares both ends would not be comparable."""
    flows = draw(chosen_sets(["incast-small"])[0], 1).flows
    assert len({flow.src for flow in flows}) == len(flows)
    assert {flow.dst for flow in flows} == {f"h{number}" for number in range(1, 9)}


def test_paths_of_the_leaf_spine_use_every_spine() -> None:
    flows = draw(msgspec.structs.replace(chosen_sets(["leaf-spine"])[0], flows=500), 1).flows
    crossed = {flow.path[1].split("->")[1] for flow in flows if len(flow.path) == 4}
    assert len(crossed) == 4


def test_an_unknown_flow_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"--case moe-64: there is no such flow set \(flow sets: star-150, "):
        chosen_sets(["moe-64"])
