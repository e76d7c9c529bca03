"""Queue trees: the kernel has what was asked for, and every difference is refused."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.flow import Level
from controller.openflow import dscp_of
from testbed.emulation import queues
from testbed.emulation.queues import QueueMismatch, QueueTree

TREE = QueueTree(device="port1", line_bps=60e6, mtu=4200)

Shell = Callable[[str], None]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A network namespace with the ports `port1` and `port2`, in which every `tc` of a test runs.

    Yields a function that runs a shell command in that namespace.
    """
    tc = shutil.which("tc")
    with subprocess.Popen(["unshare", "--net", "sleep", "120"]) as keeper:
        try:
            _wait_until_elsewhere(keeper.pid)
            enter = f"nsenter --net=/proc/{keeper.pid}/ns/net"
            (tmp_path / "tc").write_text(f'#!/bin/sh\nexec {enter} {tc} "$@"\n')
            (tmp_path / "tc").chmod(0o755)
            monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

            def run(command: str) -> None:
                subprocess.run(f"{enter} {command}", shell=True, check=True)

            run("ip link add port1 type veth peer name port2")
            yield run
        finally:
            keeper.kill()


def _wait_until_elsewhere(pid: int) -> None:
    here = os.readlink("/proc/self/ns/net")
    deadline = time.monotonic() + 10
    while os.readlink(f"/proc/{pid}/ns/net") == here:
        assert time.monotonic() < deadline, "unshare --net made no network namespace"
        time.sleep(0.01)


def test_a_tree_reads_back_as_it_was_asked_for(shell: Shell) -> None:
    queues.set_up([TREE])
    rows = queues.read_back([TREE])["port1"]
    assert (rows[0]["class"], rows[0]["rate_bps"], rows[0]["ceil_bps"]) == ("1:1", 60e6, 60e6)
    assert rows[1:] == [
        {
            "class": f"1:{0x10 + level:x}",
            "prio": level,
            "rate_bps": 1.2e6,
            "ceil_bps": 60e6,
            "leaf": "pfifo",
            "limit_packets": 3000,
            "dscp": dscp_of(level),
        }
        for level in Level
    ]


@pytest.mark.parametrize("line_bps", [1e6, 33_333_333.3, 999e6, 1.25e9, 40e9])
def test_rates_survive_the_way_tc_prints_them(shell: Shell, line_bps: float) -> None:
    trees = [QueueTree(device=port, line_bps=line_bps, mtu=4200) for port in ("port1", "port2")]
    queues.set_up(trees)
    assert set(queues.read_back(trees)) == {"port1", "port2"}


LEAF = "dev port1 parent 1:1 classid 1:12 htb"  # the class of P2
TOS = f"{dscp_of(Level.P2) << 2:#04x}"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        pytest.param(
            f"tc class change {LEAF} rate 900kbit ceil 60mbit prio 2",
            "port1 1:12: rate_bps is 900000.0, asked for 1200000.0",
            id="guaranteed rate",
        ),
        pytest.param(
            f"tc class change {LEAF} rate 1200kbit ceil 50mbit prio 2",
            "port1 1:12: ceil_bps is 50000000.0, asked for 60000000.0",
            id="ceiling",
        ),
        pytest.param(
            "tc class change dev port1 parent 1: classid 1:1 htb rate 100mbit ceil 100mbit",
            "port1 1:1: rate_bps is 100000000.0, asked for 60000000.0",
            id="line rate",
        ),
        pytest.param(
            f"tc class change {LEAF} rate 1200kbit ceil 60mbit prio 3",
            "port1 1:12: prio is 3, asked for 2",
            id="priority",
        ),
        pytest.param(
            "sh -c 'tc filter del dev port1 parent 1: && tc class del dev port1 classid 1:12'",
            "port1 1:12: missing",
            id="missing level",
        ),
        pytest.param(
            "tc class add dev port1 parent 1:1 classid 1:18 htb rate 1200kbit",
            "port1 1:18: unexpected",
            id="one level too many",
        ),
        pytest.param(
            "tc qdisc change dev port1 parent 1:12 handle 12: pfifo limit 100",
            "port1 1:12: limit_packets is 100, asked for 3000",
            id="queue length",
        ),
        pytest.param(
            "sh -c 'tc qdisc del dev port1 parent 1:12 handle 12: &&"
            " tc qdisc add dev port1 parent 1:12 handle 12: tbf rate 1mbit burst 10k latency 50ms'",
            "port1 1:12: leaf is tbf, asked for pfifo",
            id="kind of queue",
        ),
        pytest.param(
            "tc filter del dev port1 parent 1:",
            f"port1 1:12: dscp is -1, asked for {dscp_of(Level.P2)}",
            id="missing filters",
        ),
        pytest.param(
            "sh -c 'tc filter del dev port1 parent 1: && tc filter add dev port1 parent 1: protocol ip"
            f" prio 1 u32 match ip tos {TOS} 0xfc flowid 1:17'",
            f"port1 1:17: dscp is {dscp_of(Level.P2)}, asked for {dscp_of(Level.SCAVENGER)}",
            id="filter to another level",
        ),
        pytest.param(
            "tc filter add dev port1 parent 1: protocol ip prio 2 u32 match u32 0 0 flowid 1:11",
            "port1 1:1: other_filters is 1, asked for 0",
            id="catch-all filter",
        ),
        pytest.param("tc qdisc del dev port1 root", "port1 1:1: missing", id="no tree at all"),
    ],
)
def test_a_difference_is_refused_by_device_and_name(shell: Shell, change: str, difference: str) -> None:
    queues.set_up([TREE])
    queues.read_back([TREE])
    shell(change)
    with pytest.raises(QueueMismatch) as refusal:
        queues.read_back([TREE])
    assert difference in str(refusal.value)


def test_every_difference_is_listed(shell: Shell) -> None:
    other = QueueTree(device="port2", line_bps=60e6, mtu=4200)
    queues.set_up([TREE, other])
    shell(f"tc class change {LEAF} rate 900kbit ceil 60mbit prio 2")
    shell("tc qdisc change dev port2 parent 1:14 handle 14: pfifo limit 7")
    with pytest.raises(QueueMismatch) as refusal:
        queues.read_back([TREE, other])
    assert str(refusal.value).splitlines()[1:] == [
        "  port1 1:12: rate_bps is 900000.0, asked for 1200000.0",
        "  port2 1:14: limit_packets is 7, asked for 3000",
    ]


def test_what_tc_refuses_is_told_in_its_own_words(shell: Shell) -> None:
    with pytest.raises(RuntimeError, match="nowhere"):
        queues.set_up([QueueTree(device="nowhere", line_bps=60e6, mtu=4200)])
