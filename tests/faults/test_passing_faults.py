"""A fault that passes: the run goes on to its end, is not faithful, and says whose fault it was."""

import emulated_world as world
import msgspec
import pytest
from fault_injection import Deed, Injector, let_through, micro, serving, stop, take_down, the, with_pauses

from testbed.job import Job, Scale
from testbed.record import Check

PAUSE = "longest pause of a process"
DOWN = "longest time a link was down"
AHEAD = "bytes ahead of the line of a port max"


def failed(job: Job, deed: Deed, *, after_s: float = 0.5, phase: str = "running") -> dict[str, Check]:
    """The checks that failed in a run in which the deed was done, by their names."""
    injector = Injector(deed, phase=phase, after_s=after_s)
    record = world.run(job, injector)
    injector.finish()
    assert not record.fidelity.faithful
    return {check.name: check for check in record.fidelity.checks if not check.ok}


@pytest.mark.slow
def test_without_a_fault_these_checks_are_green() -> None:
    """Others may be red on a busy machine. Sixteen times as slow as the usual job, so that only a pause of
    0.38 s is a fifth of a request, which takes 1.9 s alone."""
    job = msgspec.structs.replace(serving(), scale=Scale(time_dilation=16.0, bytes_scale=16.0))
    record = world.run(job)
    last_five = {check.name: (check.value, check.ok) for check in record.fidelity.checks[-5:]}
    assert [name for name, (_, ok) in last_five.items() if not ok] == [], last_five
    assert last_five[DOWN] == (0.0, True)


@pytest.mark.parametrize(
    "name",
    [
        "ovs-vswitchd",
        pytest.param("rank 2", marks=pytest.mark.slow),
        pytest.param("rank 0", marks=pytest.mark.slow),
        pytest.param("ovsdb-server", marks=pytest.mark.slow),
        pytest.param("the controller", marks=pytest.mark.slow),
        pytest.param("process 1", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_pauses_is_named(name: str) -> None:
    """Rank 2 receives all flows, rank 0 sends some. On a busy machine others may pause, too. A flow alone
    takes 0.8 s."""
    check = failed(micro(), stop(the(name), 2.0))[PAUSE]
    assert check.value is not None
    assert check.value > 1.0 / 0.8
    assert f"{name} did not run for " in check.advice


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.0, 0.8, 1.6])
@pytest.mark.parametrize("name", ["rank 0", "ovs-vswitchd", "the controller"])
def test_at_any_moment_of_a_serving_run_too(name: str, after_s: float) -> None:
    """Undisturbed, the run takes 2 s, its last requests arrive after 1.6 s, and one alone takes under 1 s."""
    check = failed(serving(), stop(the(name), 2.5), after_s=after_s)[PAUSE]
    assert check.value is not None
    assert check.value > 1.2
    assert f"{name} did not run for " in check.advice


LINKS = {
    "nh1-eth2": "link h1-s1 (nh1-eth2, s1-eth1)",  # a NIC's uplink, at the NIC
    "s1-eth3": "link h3-s1 (nh3-eth2, s1-eth3)",  # at the switch
    "nh3-eth1": "link of h3 to its NIC bridge (h3-eth0, nh3-eth1)",
}


@pytest.mark.parametrize(
    "device", ["nh1-eth2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("s1-eth3", "nh3-eth1"))]
)
def test_a_link_that_is_down_for_a_while_is_named(device: str) -> None:
    check = failed(micro(), take_down(device, 1.0))[DOWN]
    assert check.value is not None
    assert check.value > 800
    assert check.advice.startswith(f"{LINKS[device]} was down for ")


@pytest.mark.slow
def test_a_link_that_is_down_for_a_moment_is_named() -> None:
    assert failed(micro(), take_down("s1-eth1", 0.0))[DOWN].advice.startswith("link h1-s1 ")


ON_THE_WAY = {"nh1-eth2": 20e6, "s1-eth3": 20e6}
"""The ports h1->s1 and s1->h3, which the first flow crosses."""


def test_a_queue_that_lets_too_much_through_at_once_is_named() -> None:
    """An idle port passes 51 packets instead of 3. No queue is read back for its burst.

    A flow is ahead by 30 ms then, which it loses again if a process is late: one of eight flows is enough.
    """
    deed = let_through(ON_THE_WAY, burst_packets=50)
    check = failed(with_pauses(), deed, after_s=0.0, phase="probing the links")[AHEAD]
    assert check.value is not None
    assert 1 < check.value < 51 / 3
    assert check.advice.startswith(("port h1->s1 is faster", "port s1->h3 is faster"))


@pytest.mark.slow
def test_a_queue_that_is_too_fast_for_a_while_is_named() -> None:
    check = failed(micro(), let_through(ON_THE_WAY, faster=2.0), after_s=0.0)[AHEAD]
    assert check.value is not None
    assert check.value > 1
    assert check.advice.startswith(("port h1->s1 is faster", "port s1->h3 is faster"))
