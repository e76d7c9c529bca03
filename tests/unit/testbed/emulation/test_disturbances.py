"""What disturbed a run: each check, its value, and whom it names.

A model second takes ten wall seconds here, and model time 0 is wall second 100. A request alone takes 0.25
model seconds, so moments of 0.5 wall seconds are a fifth of it.
"""

from collections.abc import Sequence

from serving_world import job, placed

from controller.flow import Level, Stage, Transfer
from controller.lanes import LevelTrail
from controller.protocol import Away
from controller.pulse import Pause
from testbed.coordinator.gathered import Gathered
from testbed.coordinator.lapses import WallClock
from testbed.coordinator.outages import Down
from testbed.emulation.asked import Asked, Window
from testbed.emulation.disturbances import disturbances, pauses_of, restarts, unasked_pause, undisturbed
from testbed.emulation.queues import PortCounters
from testbed.emulation.samples import Sample, SampleLog
from testbed.faults import ControllerRestart, Fault, LinkFault, RankPause, SwitchRestart
from testbed.record import Check, FlowRow
from testbed.serving.yardsticks import Yardstick
from workers.protocol import Records, SentFlow

S = 1_000_000_000
MS = 1_000_000
PAUSE = "longest pause of a process"
DOWN = "longest time a link was down"
SILENT = "longest time without delivery while a flow was due"
PERMIT = "permit latency max"
AWAY = "longest time a bridge was without the controller"
LATE = "late wake-ups of timed compute max"
NONE = (0,) * 8
ALONE = Yardstick(short="a lone TTFT", name="the TTFT of the median request alone", seconds=0.25)


def pause(begin_s: float, seconds: float) -> Pause:
    return Pause(begin_wall_ns=round(begin_s * S), wall_ns=round(seconds * S))


def sent(flow: str, rank: int, submit_s: float, latency_ms: float) -> SentFlow:
    return SentFlow(
        transfer=Transfer(id=flow, stage=Stage.P2D, src=rank, dst=9, size_bytes=1),
        submit_ns=round(submit_s * S),
        permit_ns=round(submit_s * S),
        lane_wait_ns=0,
        permit_latency_wall_ns=round(latency_ms * MS),
    )


def records(rank: int, *flows: SentFlow, late_ms: tuple[float, ...] = ()) -> Records:
    return Records(
        rank=rank,
        sent=flows,
        received=(),
        spans=(),
        progress=(),
        late_wakeups_ms=late_ms,
        longest_pause=pause(100, 0),
    )


def gathered(*ranks: Records) -> Gathered:
    made = Gathered(job(*placed()))
    for rank in ranks:
        made.take(rank)
    return made


def flow(id_: str, permit_s: float, finish_s: float, *path: str, stage: Stage = Stage.P2D) -> FlowRow:
    trail = LevelTrail()
    trail.moved_to(Level.P3)
    return FlowRow.of(
        Transfer(id=id_, stage=stage, src=0, dst=1, size_bytes=1),
        {0: "h1", 1: "h2"}.__getitem__,
        submit_ns=round(permit_s * S),
        permit_ns=round(permit_s * S),
        lane_wait_ns=0,
        finish_ns=round(finish_s * S),
        trail=trail,
        path=path,
        verified=None,
    )


def sample(time_s: float, **sent_bytes: int) -> Sample:
    """Bytes that ports `a`, `b`, ... have sent so far."""
    ports = {
        port: PortCounters(sent_bytes=(0, sent, *NONE[2:]), backlog_bytes=NONE, drops=NONE, packets=NONE)
        for port, sent in sent_bytes.items()
    }
    return Sample(wall_ns=round((100 + 10 * time_s) * S), time_ns=round(time_s * S), ports=ports)


def check(
    name: str,
    *,
    pauses: dict[str, Pause] | None = None,
    outages: Sequence[Down] = (),
    away: Sequence[Away] = (),
    ranks: Sequence[Records] = (),
    flows: Sequence[FlowRow] = (),
    samples: Sequence[Sample] = (),
    asked: Sequence[Asked] = (),
    fault_late_ms: float | None = None,
) -> Check:
    clock = WallClock(zero_wall_ns=100 * S, time_dilation=10.0)
    heard = gathered(*ranks)
    checks = disturbances(
        pauses=pauses or {},
        outages=outages,
        away=away,
        permits=heard.permits,
        late_ms=heard.late_ms,
        flows=flows,
        samples=SampleLog(samples),
        clock=clock,
        asked=asked,
        fault_late_ms=fault_late_ms,
        whole=ALONE,
    )
    (found,) = (one for one in checks if one.name == name)
    return found


def test_every_measure_states_its_bound() -> None:
    bounds = [(name, check(name).bound) for name in (PAUSE, DOWN, AWAY, SILENT, PERMIT, LATE)]
    assert bounds == [
        (PAUSE, "<= 0.2"), (DOWN, "<= 0"), (AWAY, "<= 0"), (SILENT, "<= 1000"),
        (PERMIT, "<= 0.2"), (LATE, "<= 0.2"),
    ]  # fmt: skip


def test_a_process_that_paused_is_named_with_the_moment() -> None:
    """It began 5 s after the start, half a model second."""
    judged = check(PAUSE, pauses={"rank 0": pause(101, 0.02), "rank 1": pause(105, 2.0)})
    assert (judged.value, judged.ok, judged.dilation) == (0.8, False, 4.0)
    assert judged.advice.startswith(
        "rank 1 did not run for 2.00 s of wall time from 0.500 s of model time on"
    )
    assert "rank 0" not in judged.advice


def test_short_pauses_are_no_fault() -> None:
    judged = check(PAUSE, pauses={"rank 0": pause(101, 0.5), "ovs-vswitchd": pause(105, 0.1)})
    assert (judged.value, judged.ok, judged.advice) == (0.2, True, "")


def test_any_outage_of_a_link_is_a_fault() -> None:
    assert (check(DOWN).value, check(DOWN).ok) == (0.0, True)
    outage = Down(link="link h1-s1", begin_wall_ns=110 * S, wall_ns=S // 1000)
    judged = check(DOWN, outages=[outage])
    assert (judged.value, judged.ok) == (1.0, False)
    assert judged.advice.startswith("link h1-s1 was down for 0.00 s of wall time from 1.000 s of model time")


SIX = tuple(sample(i / 10, a=100 * min(i, 2), b=0) for i in range(6))
"""Six samples, 0.1 model seconds apart. Port a sends until 0.2 s, port b sends nothing."""


def test_a_flow_that_is_due_while_its_whole_path_is_silent_counts() -> None:
    """Between the samples at 0.2 and 0.5 model seconds, 3 wall seconds pass and nothing is sent."""
    judged = check(SILENT, samples=SIX, flows=[flow("f", 0.05, 0.55, "a", "b")])
    assert (judged.value, judged.ok) == (3000.0, False)
    assert judged.advice.startswith("flow f on a, b from 0.200 s of model time on: nothing")


def test_silence_counts_only_while_the_flow_is_under_way() -> None:
    """From its permit to the end: the samples at 0.3 and 0.4 s, a wall second, which is the bound."""
    judged = check(SILENT, samples=SIX, flows=[flow("f", 0.25, 0.45, "a")])
    assert (judged.value, judged.ok) == (1000.0, True)


def down(port: str, begin_s: float, end_s: float | None) -> Asked:
    """A link that was asked to be down, in model seconds."""
    fault = LinkFault(link="h1-s1", ports=(port,), share=0.0, from_ns=0, to_ns=None)
    begin_ns, end_ns = (None if s is None else round((100 + 10 * s) * S) for s in (begin_s, end_s))
    assert begin_ns is not None
    return Asked(fault=fault, window=Window(begin_ns=begin_ns, end_ns=end_ns))


def test_silence_that_the_scenario_asked_for_is_none() -> None:
    """Port b is down until 0.25 s, and TCP may take 1.5 wall seconds to notice: until 0.4 s. Then it is
    silent for a wall second. That port c is down explains nothing."""
    flows = [flow("f", 0.05, 0.55, "a", "b")]
    judged = check(SILENT, samples=SIX, flows=flows, asked=[down("b", 0.0, 0.25)])
    assert (judged.value, judged.ok) == (1000.0, True)
    assert check(SILENT, samples=SIX, flows=flows, asked=[down("c", 0.0, 0.25)]).value == 3000.0
    assert check(SILENT, samples=SIX, flows=flows, asked=[down("b", 0.3, None)]).value == 1000.0


def paused(rank: int, begin_s: float, end_s: float) -> Asked:
    """A rank that was asked to pause, in wall seconds."""
    fault = RankPause(rank=rank, from_ns=0, to_ns=1)
    return Asked(fault=fault, window=Window(begin_ns=round(begin_s * S), end_ns=round(end_s * S)))


def test_a_pause_that_the_scenario_asked_for_is_none_and_another_one_is_seen() -> None:
    """Asked for from 105 to 108 s, with half a second before and after it. The one from 111 s on was not."""
    pauses = (pause(105.0, 3.1), pause(111.0, 0.7), pause(100, 0))
    assert unasked_pause(pauses, pauses_of(1, [paused(1, 105, 108)])) == pause(111.0, 0.7)
    assert unasked_pause(pauses, pauses_of(1, [paused(2, 105, 108)])) == pause(105.0, 3.1)
    assert unasked_pause([pause(105.0, 5.0)], pauses_of(1, [paused(1, 105, 108)])) == pause(108.5, 1.5)


def test_a_permit_that_came_in_an_asked_pause_does_not_count() -> None:
    """Both are submitted at 110 s of wall time, 1 model second; the pause is from 112 to 115 s."""
    record = records(1, sent("quick", 1, 1.0, 1.0), sent("late", 1, 1.0, 4000.0))
    clock = WallClock(zero_wall_ns=100 * S, time_dilation=10.0)
    permits = gathered(record).permits
    kept = undisturbed(permits, [paused(1, 112, 115)], clock)
    assert [permit.flow for permit in kept] == ["quick"]
    assert undisturbed(permits, [paused(0, 112, 115)], clock) == permits


def restarting(fault: Fault, begin_s: float, end_s: float) -> Asked:
    return Asked(fault=fault, window=Window(begin_ns=round(begin_s * S), end_ns=round(end_s * S)))


CONTROLLER = ControllerRestart(from_ns=0, to_ns=1)
S1 = SwitchRestart(switch="s1", link="s1", ports=("h1->s1", "s1->h1"), share=0.0, from_ns=0, to_ns=1)


def away(bridge: str, begin_s: float, end_s: float) -> Away:
    return Away(bridge=bridge, begin_wall_ns=round(begin_s * S), end_wall_ns=round(end_s * S))


def test_a_bridge_without_the_controller_is_a_fault_that_is_named() -> None:
    """For 2 s of wall time from wall second 110 on: model second 1."""
    judged = check(AWAY, away=[away("s1", 110, 112), away("nh1", 110, 110.5)])
    assert (judged.value, judged.ok) == (2000.0, False)
    assert judged.advice.startswith(
        "s1 for 2.00 s of wall time from 1.000 s of model time on; nh1 for 0.50 s"
    )


def test_a_restart_that_was_asked_for_excuses_the_bridges_that_it_concerns() -> None:
    """Asked for from 105 to 108 s. Bridges have until 109.5 s: a second to connect, and half of one more."""
    spells = [away("s1", 105, 109.4), away("nh1", 105, 109.4)]
    assert check(AWAY, away=spells, asked=[restarting(CONTROLLER, 105, 108)]).ok
    judged = check(AWAY, away=spells, asked=[restarting(S1, 105, 108)])
    assert judged.value == 4400.0
    assert judged.advice.startswith("nh1 ")
    late = check(AWAY, away=[away("s1", 105, 110.5)], asked=[restarting(S1, 105, 108)])
    assert late.value == 1000.0


def test_while_the_controller_restarts_no_permit_and_no_pause_of_it_counts() -> None:
    """Every rank waits for it. A pause of its own before that was not asked for."""
    asked = [restarting(CONTROLLER, 112, 115)]
    ranks = [records(0, sent("late", 0, 1.0, 4000.0)), records(1, sent("quick", 1, 1.0, 1.0))]
    clock = WallClock(zero_wall_ns=100 * S, time_dilation=10.0)
    kept = undisturbed(gathered(*ranks).permits, asked, clock)
    assert [permit.flow for permit in kept] == ["quick"]
    pauses = (pause(112.0, 3.1), pause(105.0, 0.7))
    assert unasked_pause(pauses, restarts(asked)) == pause(105.0, 0.7)


def test_silence_of_a_flow_whose_receiver_is_paused_is_none() -> None:
    """Rank 1 receives. Its pause, with half a second more, is over at 104.1 s: after the sample at 104 s."""
    flows = [flow("f", -0.05, 0.55, "b")]
    judged = check(SILENT, samples=SIX, flows=flows, asked=[paused(1, 100, 103.6)])
    assert (judged.value, judged.ok) == (0.0, True)
    assert check(SILENT, samples=SIX, flows=flows, asked=[paused(1, 100, 103.5)]).value == 1000.0
    assert check(SILENT, samples=SIX, flows=flows, asked=[paused(5, 100, 103.5)]).value == 5000.0


def test_a_fault_that_came_late_is_one() -> None:
    late = "fault that came latest"
    assert check(late, fault_late_ms=250.0).ok
    judged = check(late, fault_late_ms=251.0)
    assert (judged.value, judged.ok) == (251.0, False)
    assert judged.advice.startswith("the machine was too busy to make faults in time")


def test_what_need_not_cross_a_link_or_waits_for_others_is_never_silent() -> None:
    inside = flow("inside", 0.0, 0.5)
    share = flow("share", 0.0, 0.5, "b", stage=Stage.COLLECTIVE)
    assert check(SILENT, samples=SIX, flows=[inside, share]).value == 0.0


def test_the_slowest_permit_names_its_flow() -> None:
    ranks = [
        records(0, sent("quick", 0, 0.1, 1.0)),
        records(1, sent("slow", 1, 0.25, 501.0), sent("next", 1, 0.3, 400.0)),
    ]
    judged = check(PERMIT, ranks=ranks)
    assert (judged.value, judged.ok) == (0.2004, False)
    assert judged.advice.startswith("flow slow of rank 1 waited, submitted at 0.250 s of model time.")
    assert check(PERMIT, ranks=[records(0, sent("f", 0, 0.1, 500.0))]).ok


def test_the_latest_wake_up_names_its_rank() -> None:
    judged = check(LATE, ranks=[records(0, late_ms=(1.0, 2.0)), records(3, late_ms=(0.5, 700.0))])
    assert (judged.value, judged.ok) == (0.28, False)
    assert judged.advice.startswith("rank 3 woke up late.")
