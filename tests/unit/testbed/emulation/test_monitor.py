"""If sampling fails during a run, the next check of the run raises the failure."""

import time

import pytest
from flow_table import wiring_of

from testbed.emulation.fidelity import CpuMeter
from testbed.emulation.monitor import LinkMonitor
from testbed.emulation.network import Network
from testbed.fabric import RunFailed
from testbed.topology import star


def watched(device: str) -> LinkMonitor:
    net = Network(
        wiring=wiring_of(star(servers=2, nic_bps=10**9)),
        devices={"h1->s1": device},
        trees={},
        host_pids={},
        host_devices={},
        datapath="user",
        net=None,
    )
    return LinkMonitor(net)


def keep_checking(watch: LinkMonitor | CpuMeter) -> None:
    """Check as a run does, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        watch.check()
        time.sleep(0.02)


def test_a_queue_that_cannot_be_read_is_told_at_once() -> None:
    monitor = watched("no-such-device")
    monitor.check()
    monitor.start(time.monotonic_ns(), 1.0)
    with pytest.raises(RunFailed, match="the queues can no longer be sampled: "):
        keep_checking(monitor)


def test_cpu_times_that_cannot_be_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = CpuMeter()
    meter.start()

    def broken(interval: float | None) -> None:
        raise OSError("no /proc/stat")

    monkeypatch.setattr("psutil.cpu_times_percent", broken)
    with pytest.raises(RunFailed, match="idle CPU time can no longer be read: OSError: no /proc/stat"):
        keep_checking(meter)
