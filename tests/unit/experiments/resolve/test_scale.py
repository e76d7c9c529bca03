"""The scale of an emulated run: from the work alone, and from what a machine did in a rehearsal."""

import msgspec
import pytest
from record_factory import micro_record

from experiments.resolve.jobs import resolve
from experiments.resolve.rehearsal import machine_of, rehearsal_job
from experiments.resolve.scale import is_open, longest_dilation, machine_scale, work_s
from experiments.results.machine import Machine
from experiments.scenario.reading import load_scenario, override
from experiments.scenario.scenario import Scenario
from testbed.job import Job, Scale

QUICK = Machine(
    permit_p50_ms=0.5,
    permit_p99_ms=3.0,
    late_p99_ms=0.5,
    cpu_wait_ms=0.25,
    forwarded_mbps=75.0,
    offered_mbps=75.0,
    cpu_idle=0.5,
    policy="mfs",
)


def scenario_of(*settings: str, name: str = "quickstart") -> Scenario:
    return load_scenario(name, [override(text) for text in ("fabric=mininet", *settings)])


def job_of(scenario: Scenario) -> Job:
    return resolve(scenario).jobs[0]


def chosen(machine: Machine | None, *settings: str) -> tuple[Scale, tuple[str, ...]]:
    scenario = scenario_of(*settings)
    return machine_scale(scenario, job_of(scenario), machine)


def slow(**changed: float) -> Machine:
    return msgspec.structs.replace(QUICK, **changed)


def test_a_quick_machine_gets_the_scale_that_the_work_alone_would_get() -> None:
    """A NIC of 50 Gb/s at 15 Mb/s: 15e6 * 36 / 50e9 bytes per byte."""
    unmeasured, without = chosen(None)
    scale, notes = chosen(QUICK)
    assert scale == unmeasured == Scale(time_dilation=36.0, bytes_scale=0.0108)
    assert notes[0] == (
        "measured before the run, under mfs: permits take 0.5 ms (p50) and 3 ms (p99), wake-ups are 0.5 ms"
        " late (p99), a process waits 0.25 ms for its turns on a CPU (mean), 75 Mb/s"
        " arrive per NIC when all send 75 Mb/s, 50 % of the CPU time is idle"
    )
    assert "36 wall seconds (so that a policy takes about 60 s), a NIC" in notes[1]
    assert notes[1].endswith("a NIC runs at 15 Mb/s on the machine")
    assert without == notes[1:]


@pytest.mark.parametrize(
    ("machine", "dilation", "why"),
    [
        # The median request reuses 768 tokens of 4096 bytes a layer: 0.5033 ms at 50 Gb/s.
        (slow(permit_p50_ms=2.0), 80.0, "so that permits (p50) are at most 0.05 of a short transfer"),
        (slow(permit_p99_ms=20.0), 80.0, "so that permits (p99) are at most 0.5 of a short transfer"),
        # Its layers compute for 0.6147 ms.
        (slow(late_p99_ms=20.0), 140.0, "so that late wake-ups (p99) are at most 0.25 of a layer's compute"),
        (
            slow(cpu_wait_ms=2.0),
            80.0,
            "so that waits for the CPU (mean) are at most 0.05 of a short transfer",
        ),
    ],
)
def test_time_is_stretched_until_delays_are_short_next_to_what_they_delay(
    machine: Machine, dilation: float, why: str
) -> None:
    """Twice the delay, over its bound and the yardstick. Links keep their rate."""
    scale, notes = chosen(machine)
    assert scale.time_dilation == dilation
    assert scale.wire_bps(50e9) == pytest.approx(15e6)
    assert why in notes[1]


def test_the_wall_time_of_a_run_is_bounded() -> None:
    """Permits of 100 ms need a dilation of 400. By default, a run takes at most four times `wall_s`."""
    scenario = scenario_of()
    most = longest_dilation(scenario.scale, job_of(scenario))
    assert most * work_s(job_of(scenario)) == pytest.approx(240.0, rel=0.05)
    scale, notes = chosen(slow(permit_p99_ms=100.0))
    assert scale.time_dilation == most
    assert "as many as scale.most_wall_s allows; 400 would be needed" in notes[1]
    longer, _ = chosen(slow(permit_p99_ms=100.0), "scale.most_wall_s=1000")
    assert longer.time_dilation == 400.0


def test_links_are_as_slow_as_a_fifth_of_what_the_machine_forwards() -> None:
    scale, notes = chosen(slow(forwarded_mbps=41.0))
    assert scale.wire_bps(50e9) == pytest.approx(8.2e6, rel=1e-3)
    assert notes[1].endswith("a NIC runs at 8.2 Mb/s on the machine (a 5th of what it forwards)")


def test_layers_last_some_time_on_a_machine_that_was_not_measured() -> None:
    """Its run may take longer than `most_wall_s`, since nothing bounds it, and says how long."""
    scale, [note] = chosen(None, "scale.wall_s=1")
    seconds = scale.time_dilation * work_s(job_of(scenario_of()))
    assert (
        f"(so that a layer of a median request takes at least 0.03 s; a policy takes about {seconds:.0f} s)"
        in note
    )


def test_what_a_scenario_gives_is_kept() -> None:
    bad = slow(permit_p99_ms=20.0, forwarded_mbps=20.0)
    given, notes = chosen(bad, "scale.time_dilation=50", "scale.link_mbps=10")
    seconds = 50 * work_s(job_of(scenario_of()))
    assert f"takes 50 wall seconds (given; a policy takes about {seconds:.0f} s)" in notes[1]
    assert (given.time_dilation, given.wire_bps(50e9)) == (50.0, pytest.approx(10e6))


@pytest.mark.parametrize(
    ("settings", "open_"),
    [
        ((), True),
        (("scale.time_dilation=50",), True),
        (("scale.link_mbps=10",), True),
        (("scale.time_dilation=50", "scale.link_mbps=10"), False),
        (("scale.time_dilation=50", "scale.bytes_scale=0.01"), False),
    ],
)
def test_nothing_is_measured_for_a_scale_that_is_given(settings: tuple[str, ...], open_: bool) -> None:
    assert is_open(scenario_of(*settings).scale) is open_


def test_a_rehearsal_takes_some_seconds_of_the_same_work_all_at_once() -> None:
    """48 requests take about 60 s on the wall, so six of them take about 8 s. Faults of the scenario do not
    happen."""
    job = job_of(scenario_of("faults=[{kind: pause, rank: 0, from_s: 0, to_s: 9}]"))
    rehearsal = rehearsal_job(job)
    assert rehearsal.faults == ()
    assert [request.id for request in rehearsal.requests] == [request.id for request in job.requests[:6]]
    assert {request.arrival_ns for request in rehearsal.requests} == {0}
    assert (rehearsal.scale, rehearsal.placement) == (job.scale, job.placement)
    assert rehearsal.probe_faster == 5.0


def test_single_flows_are_rehearsed_short_and_one_after_the_other() -> None:
    """A model second takes two wall seconds: a flow begins every 25 ms, and the median lasts 0.1 s."""
    job = job_of(scenario_of(name="two-flows"))
    flows = rehearsal_job(job).flows
    assert [flow.start_ns for flow in flows] == [25_000_000 * i for i in range(len(job.flows))]
    assert all(
        short.transfer.size_bytes <= flow.transfer.size_bytes
        for short, flow in zip(flows, job.flows, strict=True)
    )


def test_what_a_rehearsal_measured_comes_from_its_record() -> None:
    """Four fifths of five times 15 Mb/s arrived."""
    job = job_of(scenario_of())
    measured = msgspec.structs.replace(
        micro_record(),
        permit_latency_ms=(1.0, 2.0, 3.0),
        facts={
            "forwarded_when_faster": 0.8,
            "late_wakeups_p99_ms": 1.5,
            "cpu_idle_mean": 0.25,
            "cpu_wait_ms": 0.75,
        },
    )
    machine = machine_of(measured, job, 50e9)
    assert (machine.permit_p50_ms, machine.permit_p99_ms) == (2.0, pytest.approx(2.98))
    assert (machine.late_p99_ms, machine.cpu_idle, machine.cpu_wait_ms) == (1.5, 0.25, 0.75)
    assert (machine.forwarded_mbps, machine.offered_mbps) == (pytest.approx(60.0), pytest.approx(75.0))
