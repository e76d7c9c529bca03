"""If sampling fails during a run, the next check raises the failure. Watchers hear what ports send."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from flow_table import wiring_of
from serving_world import job, placed

from testbed.coordinator.controller import ControllerProcess
from testbed.emulation.fidelity import CpuMeter, judge
from testbed.emulation.monitor import LinkMonitor, port_now, segments_in
from testbed.emulation.network import Network
from testbed.emulation.ovs import OpenVSwitch
from testbed.emulation.processes import StopWatch
from testbed.emulation.queues import PortCounters
from testbed.emulation.run import EmulatedRun
from testbed.emulation.samples import Sample, SampleLog
from testbed.emulation.zygote import Zygote
from testbed.fabric import RunFailed
from testbed.serving.yardsticks import Yardsticks
from testbed.topology import star

S = 1_000_000_000


def watched(device: str) -> LinkMonitor:
    net = Network(
        wiring=wiring_of(star(servers=2, nic_bps=10**9)),
        devices={"h1->s1": device},
        trees={},
        host_pids={},
        host_devices={},
        nic_devices={},
        datapath="user",
        net=None,
    )
    return LinkMonitor(net)


def test_what_a_port_sends_now_is_a_share_of_its_line_by_level() -> None:
    """In half a wall second, a line of 8 Mb/s can send 500,000 bytes: 125,000 are a quarter. Its backlog of
    50,000 bytes takes 50 ms, which is 5 ms of a model that is ten times slower."""

    def counters(p2: int, p6: int, backlog: int) -> PortCounters:
        sent = (0, 0, p2, 0, 0, 0, p6, 0)
        none = (0,) * 8
        return PortCounters(sent_bytes=sent, backlog_bytes=(backlog, *none[1:]), drops=none, packets=none)

    now = port_now(
        "h1->s1",
        counters(1_000, 0, 7),
        counters(126_000, 300_000, 50_000),
        line_bytes=500_000,
        seconds=0.5,
        time_dilation=10,
    )
    assert now.shares == (0, 0, 0.25, 0, 0, 0, 0.6, 0)
    assert now.busy == pytest.approx(0.85)
    assert now.backlog_ns == 5_000_000


def test_before_two_samples_no_port_is_told() -> None:
    assert watched("nothing").now() == ()


def broken_meter(monkeypatch: pytest.MonkeyPatch) -> CpuMeter:
    """A meter that was started, and can read nothing any more."""
    meter = CpuMeter()
    meter.start()

    def broken(interval: float | None) -> None:
        raise OSError("no /proc/stat")

    monkeypatch.setattr("psutil.cpu_times_percent", broken)
    return meter


def keep_calling(check: Callable[[], None]) -> None:
    """Check as a run does, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        check()
        time.sleep(0.02)


def test_a_queue_that_cannot_be_read_is_told_at_once() -> None:
    monitor = watched("no-such-device")
    monitor.check()
    monitor.start(time.monotonic_ns(), 1.0)
    with pytest.raises(RunFailed, match="the queues can no longer be sampled: "):
        keep_calling(monitor.check)


def test_cpu_times_that_cannot_be_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = broken_meter(monkeypatch)
    with pytest.raises(RunFailed, match="idle CPU time can no longer be read: OSError: no /proc/stat"):
        keep_calling(meter.check)


# --- the check of a whole run -----------------------------------------------------------------------


def nothing_wrong() -> None:
    pass


def check_of_a_run(
    *,
    switch_ended: str = "",
    controller: Callable[[], None] = nothing_wrong,
    monitor: LinkMonitor | None = None,
    cpu: CpuMeter | None = None,
) -> Callable[[], None]:
    """What a run calls while it plays. Monitor and meter are real, and not started unless passed so."""
    watch = StopWatch(lambda what: None)
    nobody = cast(Zygote, SimpleNamespace())
    run = EmulatedRun(job(*placed()), Path("unused"), lambda progress: None, watch, nobody)
    switch = SimpleNamespace(ended=lambda: switch_ended, log_tail=lambda: "out of memory")
    return run._alive(
        cast(OpenVSwitch, switch),
        cast(ControllerProcess, SimpleNamespace(check=controller)),
        monitor or watched("no-such-device"),
        cpu or CpuMeter(),
    )


def test_a_run_goes_on_while_nothing_is_wrong() -> None:
    check_of_a_run()()


def test_a_monitor_that_has_died_ends_the_run() -> None:
    monitor = watched("no-such-device")
    monitor.start(time.monotonic_ns(), 1.0)
    with pytest.raises(RunFailed, match="the queues can no longer be sampled: "):
        keep_calling(check_of_a_run(monitor=monitor))


def test_a_meter_of_the_cpu_that_has_died_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = broken_meter(monkeypatch)
    with pytest.raises(RunFailed, match="idle CPU time can no longer be read: OSError: no /proc/stat"):
        keep_calling(check_of_a_run(cpu=meter))


def test_a_switch_that_has_died_ends_the_run_with_the_end_of_its_log() -> None:
    with pytest.raises(RunFailed, match="ovs-vswitchd has ended: out of memory"):
        check_of_a_run(switch_ended="ovs-vswitchd has ended")()


def test_a_controller_that_has_died_ends_the_run() -> None:
    def ended() -> None:
        raise RunFailed("the controller ended with exit code 1")

    with pytest.raises(RunFailed, match="the controller ended with exit code 1"):
        check_of_a_run(controller=ended)()


def test_a_segment_that_is_received_again_is_no_progress(tmp_path: Path) -> None:
    """Of 90 segments that came, 4 were copies."""
    (tmp_path / "snmp").write_text("Ip: A\nIp: 1\nTcp: InSegs OutSegs RetransSegs\nTcp: 90 70 5\n")
    (tmp_path / "netstat").write_text("TcpExt: A DelayedACKLost\nTcpExt: 7 4\nIpExt: B\nIpExt: 8\n")
    assert segments_in(tmp_path) == (70, 5, 86)


def test_a_machine_without_idle_time_ends_no_run_but_makes_it_unfaithful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """2 % of the CPU time are idle; 5 % is the bound."""
    monkeypatch.setattr("psutil.cpu_times_percent", lambda interval: SimpleNamespace(idle=2.0))
    meter = CpuMeter()
    meter.start()
    check_of_a_run(cpu=meter)()
    meter.stop()
    judged = judge(
        probes=(),
        samples=SampleLog(),
        busy=(),
        cpu=meter,
        cpu_wait=None,
        permit_ms=(),
        late_ms=(),
        segments=(0, 0),
        yardsticks=Yardsticks(transfer=None, compute=None, whole=None),
        time_dilation=1.0,
    )
    assert [(check.name, check.value) for check in judged.checks if not check.ok] == [("CPU headroom", 0.02)]
    assert not judged.faithful


def test_a_port_is_silent_that_has_sent_only_acknowledgements_since() -> None:
    """Samples at 1, 2 and 3 wall seconds. Until the second one h1 sends flows, then CONTROL alone."""
    monitor = watched("unused")

    def sample(wall_s: int, control: int, flows: int) -> Sample:
        none = (0,) * 8
        now = PortCounters(
            sent_bytes=(control, flows, *none[2:]), backlog_bytes=none, drops=none, packets=none
        )
        return Sample(wall_ns=wall_s * S, time_ns=wall_s * S, ports={"h1->s1": now})

    for one in (sample(1, 0, 100), sample(2, 10, 200), sample(3, 20, 200)):
        monitor._take(one)
    assert monitor.silent_ports(2 * S) == set()
    assert monitor.silent_ports(2 * S + 1) == {"h1->s1"}
