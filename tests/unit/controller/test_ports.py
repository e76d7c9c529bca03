"""What is due on a port, and the share of it that S1 and S2 take."""

import math

import pytest

from controller.flow import Flow, Stage
from controller.ports import BLOCKS_NOW, Due, PortLoads, left_on

UP, DOWN = "h1->s1", "s1->h2"
GBPS = 1_000_000_000
MS = 1_000_000


def loads() -> PortLoads:
    """Two ports that carry 1,000 bytes per microsecond; 1 ms window: 1,000,000 bytes."""
    return PortLoads({UP: 8 * GBPS, DOWN: 8 * GBPS}, rho_window_ns=MS)


def s3(name: str, size: int, deadline_ns: int | None) -> Flow:
    return Flow(id=name, stage=Stage.P2D, size_bytes=size, load={UP: size}, deadline_ns=deadline_ns)


def s2(size: int) -> Flow:
    load = {UP: size, DOWN: size // 2}
    return Flow(id="share", stage=Stage.COLLECTIVE, size_bytes=size, load=load, batch="b")


def test_due_adds_up_flows_with_the_same_deadline_or_an_earlier_one() -> None:
    """Due by 20: 100 (by 10) + 200 + 300 (both by 20); the 400 by 30 come later."""
    ports = loads()
    for flow in (s3("d", 400, 30), s3("b", 200, 20), s3("a", 100, 10), s3("c", 300, 20)):
        ports.submitted(flow)
    assert ports.due(UP, 20) == Due(bytes=600, flows=3)
    assert ports.due(UP, 19) == Due(bytes=100, flows=1)
    assert ports.due(DOWN, 99) == Due(bytes=0, flows=0)


def test_due_falls_with_progress_and_goes_with_completion() -> None:
    ports, flow = loads(), s3("a", 100, 10)
    ports.submitted(flow)
    ports.moved(1, flow, before_bytes=100, after_bytes=25)
    assert ports.due(UP, 10) == Due(bytes=25, flows=1)
    ports.finished(2, flow, before_bytes=25)
    assert ports.due(UP, 10) == Due(bytes=0, flows=0)


def test_s3_that_is_put_aside_is_not_due_until_it_is_taken_back() -> None:
    """100 and 200 due; 40 of the 100 arrive while it is aside, so 60 + 200 afterwards."""
    ports, flow = loads(), s3("a", 100, 10)
    for one in (flow, s3("b", 200, 10)):
        ports.submitted(one)
    ports.put_aside(flow, 100)
    assert ports.due(UP, 10) == Due(bytes=200, flows=1)
    ports.moved(1, flow, before_bytes=100, after_bytes=60)
    assert ports.due(UP, 10) == Due(bytes=200, flows=1)
    ports.take_back(flow, 60)
    assert ports.due(UP, 10) == Due(bytes=260, flows=2)


def test_s3_that_ends_aside_leaves_nothing_behind() -> None:
    ports, flow = loads(), s3("a", 100, 10)
    ports.submitted(flow)
    ports.put_aside(flow, 100)
    ports.finished(2, flow, before_bytes=100)
    assert ports.due(UP, 10) == Due(bytes=0, flows=0)
    ports.submitted(flow)
    assert ports.due(UP, 10) == Due(bytes=100, flows=1)


def test_s3_without_a_deadline_is_never_due() -> None:
    ports = loads()
    ports.submitted(s3("a", 100, None))
    assert ports.due(UP, 10**18) == Due(bytes=0, flows=0)


def test_rho_counts_early_traffic_from_submission_on_and_forgets_it_once_moved() -> None:
    """300,000 of 1,000,000 bytes per window: 0.3 while they wait, 0.3 just after they moved, and
    0.3 / e one window later. The share's 150,000 on the other port: half of that."""
    ports, flow = loads(), s2(300_000)
    ports.submitted(flow)
    assert ports.rho(UP, 0) == pytest.approx(0.3)
    assert ports.rho(DOWN, 5 * MS) == pytest.approx(0.15)
    ports.finished(5 * MS, flow, before_bytes=300_000)
    assert ports.rho(UP, 5 * MS) == pytest.approx(0.3)
    assert ports.rho(UP, 6 * MS) == pytest.approx(0.3 / math.e)


def test_rho_of_a_steady_stream_is_its_share_of_the_port() -> None:
    """200 bytes each microsecond on a port of 1,000: 0.2. Counted right after an arrival the sum is
    0.2 / 1000 / (1 - exp(-1/1000)) = 0.2001 after many windows."""
    ports = loads()
    for microsecond in range(10_000):
        flow = s2(200)
        ports.submitted(flow)
        ports.finished(microsecond * 1000, flow, before_bytes=200)
    assert ports.rho(UP, 9_999_000) == pytest.approx(0.2, rel=1e-3)


def test_rho_forgets_at_one_pace_however_long_nothing_was_asked_or_sent() -> None:
    """Each of 300,000 of 1,000,000 bytes per window: 0.3 fresh, 0.3 / e a window on; those of 700 windows
    before are gone."""
    ports = loads()
    for begin in (0, 700, 2_000, 2_499, 2_501):
        for window in (begin, begin + 1):
            ports.submitted(s2(300_000))
            ports.finished(window * MS, s2(300_000), before_bytes=300_000)
        earlier = 0.3 * (math.exp(-2) + math.exp(-3)) if begin == 2_501 else 0.0
        assert ports.rho(UP, (begin + 1) * MS) == pytest.approx(0.3 + 0.3 / math.e + earlier)
        assert ports.rho(DOWN, (begin + 1) * MS) == pytest.approx((0.3 + 0.3 / math.e + earlier) / 2)


def test_rho_leaves_five_per_cent_to_s3() -> None:
    ports = loads()
    ports.submitted(s2(10**9))
    assert ports.rho(UP, 0) == 0.95


def test_s3_does_not_count_in_rho() -> None:
    ports, flow = loads(), s3("a", 500_000, 10)
    ports.submitted(flow)
    ports.finished(1, flow, before_bytes=500_000)
    assert ports.rho(UP, 1) == 0.0


def test_a_port_lists_whose_early_flows_are_on_it_and_for_which_layer() -> None:
    ports, share = loads(), s2(100)
    fetch = Flow(id="f", stage=Stage.KV_REUSE, size_bytes=8, load={UP: 8}, batch="b", layer=3)
    ports.submitted(share)
    ports.submitted(fetch)
    assert ports.early_layers(UP) == {"b": {BLOCKS_NOW: 1, 3: 1}}
    ports.finished(1, share, before_bytes=100)
    ports.finished(1, fetch, before_bytes=8)
    assert ports.early_layers(UP) == {}


def test_the_parts_of_a_flow_drain_alike() -> None:
    """150 of 300 left: half of the 300 on the uplink, half of the 150 on the other."""
    assert left_on(s2(300), UP, 150) == 150
    assert left_on(s2(300), DOWN, 150) == 75


@pytest.mark.parametrize(("bps", "window_ns"), [(0, MS), (GBPS, 0)])
def test_a_port_without_capacity_and_a_window_without_length_are_refused(bps: int, window_ns: int) -> None:
    with pytest.raises(ValueError, match=r"no capacity|must be above 0"):
        PortLoads({UP: bps}, rho_window_ns=window_ns)
