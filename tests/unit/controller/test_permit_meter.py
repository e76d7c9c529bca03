"""The latency of a permit is what its flow waited, less the wait for a lane."""

from controller.permit_meter import PermitMeter


def test_the_wait_for_a_lane_is_not_latency() -> None:
    meter = PermitMeter()
    meter.submitted("a", 1_000_000)
    meter.submitted("b", 2_000_000)
    meter.permitted("b", lane_wait_wall_ns=0, wall_ns=2_500_000)
    meter.permitted("a", lane_wait_wall_ns=3_000_000, wall_ns=6_000_000)
    assert meter.permits == 2
    assert meter.taken_ms() == (0.5, 2.0)


def test_latencies_are_told_once_and_permits_counted_on() -> None:
    meter = PermitMeter()
    meter.submitted("a", 0)
    meter.permitted("a", 0, 1_000_000)
    assert meter.taken_ms() == (1.0,)
    assert meter.taken_ms() == ()
    assert meter.permits == 1


def test_if_nobody_asks_few_are_kept() -> None:
    meter = PermitMeter()
    for number in range(10_000):
        meter.submitted(str(number), 0)
        meter.permitted(str(number), 0, 1)
    assert meter.permits == 10_000
    assert len(meter.taken_ms()) == 4096
