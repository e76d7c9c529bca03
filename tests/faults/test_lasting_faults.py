"""A fault that lasts: the run ends within 15 s of it, and says whose fault it was."""

import time
from pathlib import Path

import emulated_world as world
import psutil
import pytest
from fault_injection import (
    Deed,
    Injector,
    Sandbox,
    blackhole,
    delete_rules,
    kill,
    micro,
    serving,
    stop,
    take_down,
    the,
)

from testbed.fabric import RunFailed
from testbed.job import Job

START = "starting workers, controller and Open vSwitch"
MOST_S = 15.0


def end_of(job: Job, deed: Deed, *, phase: str = "running", after_s: float = 0.3) -> str:
    """What a run fails with when the deed is done. By then, none of its processes is left."""
    there: list[psutil.Process] = []

    def noted(sandbox: Sandbox) -> None:
        there.extend(psutil.Process().children(recursive=True))
        deed(sandbox)

    injector = Injector(noted, phase=phase, after_s=after_s)
    with pytest.raises(RunFailed) as caught:
        world.run(job, injector)
    ended_s = time.monotonic()
    assert [one for one in there if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []
    injector.finish()
    assert injector.done_s is not None
    took_s = ended_s - injector.done_s
    assert took_s < MOST_S
    return str(caught.value).splitlines()[0]


def test_deleted_rules_end_the_run_at_once_and_the_bridge_is_named() -> None:
    assert end_of(micro(), delete_rules("s1")).startswith("a rule of bridge s1 (table ")


@pytest.mark.parametrize("name", ["ovs-vswitchd", "ovsdb-server"])
def test_a_daemon_that_dies_while_the_fabric_is_built_is_named(name: str) -> None:
    """Tools of Open vSwitch wait for it without end."""
    assert end_of(micro(), kill(the(name)), phase="building the fabric").startswith(f"{name} has ended (sig")


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["connecting lanes", "probing the links"])
def test_rules_that_are_deleted_during_the_set_up_end_it(phase: str) -> None:
    assert end_of(serving(), delete_rules("nh2"), phase=phase, after_s=0.1).startswith(
        "a rule of bridge nh2 "
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rank 1", "ovs-vswitchd", "the controller"])
def test_a_process_that_stays_stopped_is_named(name: str) -> None:
    assert name in end_of(serving(), stop(the(name)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("the workers' parent process", START),
        ("ovs-vswitchd", "building the fabric"),
        ("the controller", "connecting lanes"),
        ("rank 1", "connecting lanes"),
        ("rank 1", "probing the links"),
    ],
)
def test_a_process_that_is_stopped_during_the_set_up_is_named(name: str, phase: str) -> None:
    assert name in end_of(serving(), stop(the(name)), phase=phase)


@pytest.mark.slow
@pytest.mark.parametrize("phase", [START, "running"])
def test_process_1_that_stays_stopped_is_named(phase: str) -> None:
    message = end_of(serving(), stop(the("process 1")), phase=phase)
    assert message.startswith("the sandbox has said nothing for 12 s: its process 1 (process ")
    assert message.endswith(" is stopped")


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["connecting lanes", "running"])
def test_a_link_that_stays_down_is_named(phase: str) -> None:
    message = end_of(micro(), take_down("nh1-eth2"), phase=phase, after_s=0.1)
    assert message == "link h1-s1 (nh1-eth2, s1-eth1) has been down for 10 s"


@pytest.mark.slow
def test_a_port_that_drops_everything_is_named() -> None:
    """It is up, and no process is stopped. Senders repeat their packets in vain."""
    message = end_of(micro(), blackhole("nh3-eth1"))
    assert message.startswith("nothing has moved for 10 s: ")
    assert "f0 (h1->s1, s1->h3 send, and nothing arrives)" in message


@pytest.mark.slow
def test_a_server_whose_device_was_down_is_named() -> None:
    """The device comes back, but the kernel has forgotten its neighbours: the server stays cut off."""
    message = end_of(micro(), take_down("h1-eth0", 1.0, server="h1"))
    assert "(h1->s1 sends nothing)" in message
    assert "link of h1 to its NIC bridge (h1-eth0, nh1-eth1) was down for 1." in message


DYING_RANK = """
import os
import signal
import sys

if "workers.zygote" in sys.orig_argv:
    import workers.rank

    alive = workers.rank.Rank._finish

    def die(self, *arguments):
        if self._config.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        alive(self, *arguments)

    workers.rank.Rank._finish = die
"""


@pytest.mark.slow
def test_a_rank_that_dies_at_the_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All flows have arrived, and it has been asked for its records."""
    (tmp_path / "sitecustomize.py").write_text(DYING_RANK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert end_of(micro(), lambda sandbox: None) == "rank 1 ended with signal 9"
