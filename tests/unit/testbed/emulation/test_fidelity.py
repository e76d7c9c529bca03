"""The fidelity checks of a run: how each measure is computed, and its advice when the bound is broken."""

import msgspec
import pytest

from testbed.coordinator.cpu_wait import CpuWait
from testbed.coordinator.ranks import ProbeResult
from testbed.emulation.asked import Window
from testbed.emulation.fidelity import PAYLOAD_SHARE, judge
from testbed.emulation.monitor import BusyShot
from testbed.emulation.queues import PortCounters
from testbed.emulation.samples import Sample, SampleLog
from testbed.record import Check, Fidelity
from testbed.serving.yardsticks import Yardstick, Yardsticks

PROBES = "delivered rate, all links probed at once"
BUSY = "delivered rate while a queue was busy"
NONE = (0,) * 8


class Cpu:
    """Stands in for a meter at the end of a run."""

    def __init__(self, idle: float) -> None:
        self.mean_idle = idle


AGAINST = Yardsticks(
    transfer=Yardstick(short="a short transfer", name="the S1 of a layer", seconds=0.002),
    compute=Yardstick(short="a layer's compute", name="the compute of a layer", seconds=0.004),
    whole=None,
)
"""At a dilation of 10, a short transfer takes 20 ms on the wall, and the compute of a layer 40 ms."""


def probe(share: float) -> ProbeResult:
    """A path of 100 Mb/s that delivered `share` of the payload that it can carry."""
    return ProbeResult(src="h1", dst="h2", delivered_bps=share * PAYLOAD_SHARE * 1e8, nominal_bps=1e8)


def shot(sent: int, line: float = 1000.0) -> BusyShot:
    return BusyShot(port="h1->s1", sent_bytes=sent, line_bytes=line)


def counters(packets: int, drops: int = 0) -> PortCounters:
    """Counters with everything on level P1."""
    return PortCounters(
        sent_bytes=NONE,
        backlog_bytes=NONE,
        drops=(0, drops, *NONE[2:]),
        packets=(0, packets, *NONE[2:]),
    )


def sample(**ports: PortCounters) -> Sample:
    return Sample(wall_ns=0, time_ns=0, ports=dict(ports))


GOOD_SAMPLES = (sample(a=counters(0)), sample(a=counters(100_000)))


def verdict(**changed: object) -> Fidelity:
    """The fidelity of a good run, except for `changed`."""
    measures: dict[str, object] = {
        "probes": (probe(0.97), probe(0.99)),
        "samples": GOOD_SAMPLES,
        "busy": [shot(980)] * 10,
        "cpu": Cpu(0.4),
        "cpu_wait": None,
        "permit_ms": [0.5] * 99 + [3.0],
        "late_ms": [0.1] * 100,
        "segments": (10_000, 3),
        "yardsticks": AGAINST,
        "time_dilation": 10.0,
    }
    measures |= changed
    measures["samples"] = SampleLog(measures["samples"])  # type: ignore[arg-type]
    return judge(**measures)  # type: ignore[arg-type]


def value(fidelity: Fidelity, name: str) -> Check:
    (check,) = (check for check in fidelity.checks if check.name == name)
    return check


def test_a_good_run_is_faithful_and_needs_no_advice() -> None:
    good = verdict()
    assert good.faithful
    assert [check.advice for check in good.checks if check.advice] == []


def test_every_measure_states_its_value_its_bound_and_its_unit() -> None:
    assert [(c.name, c.bound, c.unit) for c in verdict().checks] == [
        (PROBES, ">= 0.9", "of nominal"),
        (BUSY, ">= 0.9", "of nominal"),
        ("CPU headroom", ">= 0.05", "idle"),
        ("permit latency p50", "<= 0.1", "of a short transfer"),
        ("permit latency p99", "<= 1", "of a short transfer"),
        ("packets dropped", "<= 0.0001", "of packets"),
        ("TCP retransmits", "<= 0.03", "of segments"),
        ("late wake-ups of timed compute p99", "<= 0.5", "of a layer's compute"),
    ]


def test_the_slowest_probed_path_counts() -> None:
    checked = value(verdict(probes=(probe(0.99), probe(0.95), probe(0.98))), PROBES)
    assert checked.value == pytest.approx(0.95)


def test_payload_is_measured_against_what_headers_leave_of_the_line() -> None:
    """A packet of 4200 bytes carries 4148 bytes of payload and takes 4214 on the wire."""
    assert pytest.approx(4148 / 4214) == PAYLOAD_SHARE


def test_busy_delivery_is_what_was_sent_over_what_the_lines_could_carry() -> None:
    """Four shots of a slow port, four of one ten times as fast: (4 x 900 + 4 x 9900) / 44,000."""
    shots = [shot(900), shot(9900, 10_000.0)] * 4
    checked = value(verdict(busy=shots), BUSY)
    assert checked.value == pytest.approx(43_200 / 44_000)


def test_too_few_looks_at_busy_queues_say_nothing() -> None:
    checked = value(verdict(busy=[shot(100)] * 7), BUSY)
    assert (checked.value, checked.ok) == (None, True)
    assert value(verdict(busy=[shot(100)] * 8), BUSY).ok is False


def test_drops_and_packets_are_those_of_the_run_on_all_ports() -> None:
    """The ports drop 3 of 10,000 and 1 of 30,000 packets. What happened before the run does not count."""
    before = sample(a=counters(500, 7), b=counters(100, 9))
    between = sample(a=counters(600, 7), b=counters(200, 9))
    after = sample(a=counters(10_500, 10), b=counters(30_100, 10))
    checked = value(verdict(samples=(before, between, after)), "packets dropped")
    assert checked.value == pytest.approx(4 / 40_000)
    assert checked.ok
    worse = (before, sample(a=counters(10_500, 10), b=counters(30_100, 11)))
    assert value(verdict(samples=worse), "packets dropped").ok is False


def test_drops_that_the_scenario_asked_for_do_not_count() -> None:
    """Between the first two samples, 5 of 100 packets were dropped while a link was down. Nobody asked for
    the one of 10,000 after it."""
    shots = [sample(a=counters(0)), sample(a=counters(100, 5)), sample(a=counters(10_100, 6))]
    shots = [msgspec.structs.replace(shot, wall_ns=i) for i, shot in enumerate(shots)]
    upset = [Window(begin_ns=0, end_ns=1)]
    checked = value(verdict(samples=shots, upset=upset), "packets dropped")
    assert checked.value == pytest.approx(1 / 10_000)
    assert value(verdict(samples=shots), "packets dropped").value == pytest.approx(6 / 10_100)


def test_retransmits_are_set_against_all_segments_sent() -> None:
    checked = value(verdict(segments=(100_000, 3100)), "TCP retransmits")
    assert checked.value == pytest.approx(0.031)
    assert checked.ok is False


def test_percentiles_lie_between_the_closest_ranks() -> None:
    """For 1 to 26 ms the median is 13.5, and p99 is three quarters of the way from 25 to 26."""
    judged = verdict(permit_ms=[float(ms) for ms in range(26, 0, -1)])
    assert value(judged, "permit latency p50").value == pytest.approx(13.5 / 20)
    assert value(judged, "permit latency p99").value == pytest.approx(25.75 / 20)


@pytest.mark.parametrize(("measured", "ok"), [(19, True), (20, False)])
def test_a_handful_of_latencies_is_shown_but_not_judged(measured: int, ok: bool) -> None:
    """50 ms are two and a half short transfers, and one and a quarter times the compute of a layer."""
    judged = verdict(permit_ms=[50.0] * measured, late_ms=[50.0] * measured)
    latencies = judged.checks[3], judged.checks[4], judged.checks[7]
    assert [check.ok for check in latencies] == [ok] * 3
    assert [check.value for check in latencies] == [2.5, 2.5, 1.25]
    assert ["not judged on 19 values" in check.bound for check in latencies] == [ok] * 3


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        (PROBES, {"probes": (probe(0.99), probe(0.89))}),
        (BUSY, {"busy": [shot(890)] * 20}),
        ("CPU headroom", {"cpu": Cpu(0.04)}),
        ("permit latency p50", {"permit_ms": [2.1] * 100}),
        ("permit latency p99", {"permit_ms": [1.0] * 90 + [21.0] * 10}),
        ("packets dropped", {"samples": (sample(a=counters(0)), sample(a=counters(9_999, 1)))}),
        ("TCP retransmits", {"segments": (100_000, 3001)}),
        ("late wake-ups of timed compute p99", {"late_ms": [21.0] * 100}),
    ],
)
def test_one_broken_bound_makes_a_run_unfaithful_and_says_what_to_change(
    name: str, changed: dict[str, object]
) -> None:
    judged = verdict(**changed)
    assert judged.faithful is False
    broken = [check for check in judged.checks if not check.ok]
    assert name in [check.name for check in broken]
    for check in broken:
        assert any(key in check.advice for key in ("scale.link_mbps", "scale.wall_s", "workers.lanes_s1"))


def test_a_delay_is_judged_against_what_it_delays_and_says_why() -> None:
    """15 ms are three quarters of a transfer of 20 ms on the wall. At half the dilation, they are more."""
    slow = [0.5] * 90 + [15.0] * 10
    good, bad = verdict(permit_ms=slow), verdict(permit_ms=slow, time_dilation=5.0)
    checks = [value(one, "permit latency p99") for one in (good, bad)]
    assert [(check.value, check.ok, check.dilation) for check in checks] == [
        (pytest.approx(0.75), True, None),
        (pytest.approx(1.5), False, pytest.approx(1.5)),
    ]
    assert checks[1].reason.startswith("15 ms against 10 ms on the wall for the S1 of a layer: ")


def test_links_that_deliver_too_little_would_have_to_be_slower() -> None:
    """60 % arrived where 90 % have to: two thirds of the rate would have been delivered well enough."""
    checked = value(verdict(probes=(probe(0.6),)), PROBES)
    assert (checked.slower, checked.dilation) == (pytest.approx(1.5), None)


def test_waits_for_the_cpu_are_judged_where_the_kernel_counts_them_and_idle_time_is_not() -> None:
    """Others may use all that is left of the CPU. 2.2 ms are 11 % of a transfer of 20 ms on the wall."""
    short, long = (
        verdict(cpu=Cpu(0.0), cpu_wait=CpuWait(process="rank 2", mean_ms=mean_ms)) for mean_ms in (1.9, 2.2)
    )
    assert [check.name for check in short.checks if "CPU" in check.name] == ["mean wait for the CPU"]
    assert (short.faithful, long.faithful) == (True, False)
    judged = value(long, "mean wait for the CPU")
    assert (judged.value, judged.dilation) == (pytest.approx(0.11), pytest.approx(1.1))
    assert "rank 2 waited longest" in judged.reason


def test_without_a_transfer_to_delay_latencies_are_not_judged() -> None:
    nothing = Yardsticks(transfer=None, compute=None, whole=None)
    judged = verdict(permit_ms=[900.0] * 100, late_ms=[900.0] * 100, yardsticks=nothing)
    assert judged.faithful
    assert [judged.checks[i].value for i in (3, 4, 7)] == [None] * 3


def test_what_could_not_be_measured_is_shown_as_such_and_breaks_nothing() -> None:
    judged = verdict(probes=(), samples=(), busy=(), permit_ms=(), late_ms=(), segments=(0, 0))
    assert [check.value for check in judged.checks] == [None, None, 0.4] + [None] * 5
    assert judged.faithful
