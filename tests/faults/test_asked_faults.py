"""Faults that the scenario asks for: they happen, the checks that see them stay green, and others do not."""

import re

import emulated_world as world
import msgspec
import pytest
from fault_injection import Injector, cut_off, micro, serving, take_down

from testbed.fabric import RunFailed
from testbed.faults import ControllerRestart, Fault, LinkFault, RankPause, SwitchRestart
from testbed.job import Job
from testbed.record import RunRecord

S = 1_000_000_000
SEEING = (
    "packets dropped",
    "TCP retransmits",
    "longest pause of a process",
    "longest time a link was down",
    "longest time a bridge was without the controller",
    "longest time without delivery while a flow was due",
    "permit latency max",
    "fault that came latest",
)
BOTH = ("h1->s1", "s1->h1")


def asked(job: Job, *faults: Fault) -> Job:
    return msgspec.structs.replace(job, faults=faults)


def red(record: RunRecord) -> dict[str, str]:
    """What the checks say that see faults. Others may be red on a busy machine."""
    return {
        check.name: check.advice for check in record.fidelity.checks if check.name in SEEING and not check.ok
    }


def uplink(share: float, from_s: float, to_s: float | None) -> LinkFault:
    to_ns = None if to_s is None else round(to_s * S)
    return LinkFault(link="h1-s1", ports=BOTH, share=share, from_ns=round(from_s * S), to_ns=to_ns)


def test_a_link_that_is_to_be_down_delays_a_flow_and_is_no_reason_for_doubt() -> None:
    """Flow f0 takes from 0.1 to 0.9 s alone. Down for 1 s, it ends after 1.9 s, with TCP's retry by 3.5 s."""
    record = world.run(asked(micro(), uplink(0.0, 0.5, 1.5)))
    assert red(record) == {}
    assert 1.85 * S < world.row(record, "f0").finish_ns < 3.5 * S


@pytest.mark.slow
def test_a_link_at_a_quarter_of_its_rate_is_as_slow_as_that() -> None:
    """f0 has sent half by 0.5 s. The other half takes four times 0.4 s, and TCP has to find its new rate."""
    record = world.run(asked(micro(), uplink(0.25, 0.5, 2.3)))
    assert red(record) == {}
    assert 1.9 * S < world.row(record, "f0").finish_ns < 2.8 * S


@pytest.mark.slow
def test_another_outage_in_the_same_run_is_seen() -> None:
    injector = Injector(take_down("nh2-eth2", 1.0), after_s=2.2)
    record = world.run(asked(micro(), uplink(0.0, 0.5, 1.0)), injector)
    injector.finish()
    assert "link h2-s1" in red(record)["longest time a link was down"]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.0, 12.0])
def test_a_rank_that_is_to_pause_holds_its_unit_up_and_is_no_reason_for_doubt(seconds: float) -> None:
    pause = RankPause(rank=0, from_ns=round(0.2 * S), to_ns=round((0.2 + seconds) * S))
    record = world.run(asked(serving(), pause))
    doubts = red(record)
    # Requests are so short here that 30 ms without CPU time are a doubt. Only process 1 may be without.
    assert not re.search("rank|controller|ovs", doubts.pop("longest pause of a process", ""))
    assert doubts == {}
    first = min(row.first_token_ns or 0 for row in record.requests if row.unit == "p0")
    assert first > pause.to_ns


def test_a_switch_that_is_to_restart_delays_all_flows_and_gets_its_rules_again() -> None:
    """Flow f0 takes from 0.1 to 0.9 s alone. Without s1 for 1 s, it ends after 1.9 s. TCP waits for 0.2, 0.4,
    0.8 and 1.6 s between its retries, so the last that counts is sent by 3.5 s, and f0 ends some 0.4 s later.
    The flows after it need the rules of s1, too."""
    links = tuple(f"{a}->{b}" for h in ("h1", "h2", "h3") for a, b in ((h, "s1"), ("s1", h)))
    restart = SwitchRestart(
        switch="s1", link="s1", ports=links, share=0.0, from_ns=round(0.5 * S), to_ns=round(1.5 * S)
    )
    record = world.run(asked(micro(), restart))
    assert red(record) == {}
    assert 1.85 * S < world.row(record, "f0").finish_ns < 4.5 * S
    assert len(record.flows) == 5


def test_while_the_controller_restarts_flows_go_on_and_new_ones_wait_for_their_permits() -> None:
    """f0 has its permit at 0.1 s. f1 asks for one at 0.8 s, and the controller is away from 0.5 to 2.5 s."""
    restart = ControllerRestart(from_ns=round(0.5 * S), to_ns=round(2.5 * S))
    record = world.run(asked(micro(), restart))
    assert red(record) == {}
    assert world.row(record, "f0").finish_ns < 1.2 * S
    assert world.row(record, "f1").permit_ns > 2.5 * S
    assert len(record.flows) == 5


@pytest.mark.slow
def test_a_controller_that_is_cut_off_from_a_bridge_unasked_is_seen() -> None:
    injector = Injector(cut_off("s1"), after_s=1.0)
    record = world.run(micro(), injector)
    injector.finish()
    assert "s1 for " in red(record)["longest time a bridge was without the controller"]


@pytest.mark.slow
def test_a_link_that_is_to_stay_down_ends_the_run() -> None:
    with pytest.raises(
        RunFailed, match=r"^nothing has moved for 10 s: .* link h1-s1 \(nh1-eth2, s1-eth1\) was down"
    ):
        world.run(asked(micro(), uplink(0.0, 0.3, None)))
