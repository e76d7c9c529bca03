"""Ranks, controller and monitor each record a part of a run; one record combines the parts."""

from types import SimpleNamespace

import msgspec
import pytest
from result_rows import request_row
from serving_world import job, placed, prompt

from controller.flow import Decision, Level, Stage, Transfer
from controller.protocol import Log, Logged, LoggedPath
from controller.pulse import Pause
from experiments.results.requests import fates
from testbed.coordinator.collect import collect
from testbed.coordinator.gathered import Gathered
from testbed.emulation.queues import PortCounters
from testbed.emulation.samples import Sample, SampleLog
from testbed.fabric import FabricName, RunFailed
from testbed.job import Job
from testbed.record import Fidelity, RequestRow, RunRecord
from testbed.serving.conductor import Conductor, ServingConductor
from workers.protocol import ProgressMark, ReceivedFlow, Recorded, Records, SentFlow, Span

ZERO = (0,) * 8
NO_PAUSE = Pause(begin_wall_ns=0, wall_ns=0)
FAITHFUL = Fidelity(faithful=True, checks=())


def sent(
    flow: str, *, src: int = 0, dst: int = 4, submit_ns: int = 100, stage: Stage = Stage.P2D
) -> SentFlow:
    return SentFlow(
        transfer=Transfer(
            id=flow,
            stage=stage,
            src=src,
            dst=dst,
            size_bytes=1000,
            batch="b",
            request=7,
            layer=1,
            deadline_ns=900,
        ),
        submit_ns=submit_ns,
        permit_ns=submit_ns + 50,
        lane_wait_ns=20,
        permit_latency_wall_ns=1_500_000,
    )


def records(
    rank: int,
    *,
    sent: tuple[SentFlow, ...] = (),
    received: dict[str, int] | None = None,
    spans: tuple[Span, ...] = (),
    progress: tuple[ProgressMark, ...] = (),
) -> Records:
    return Records(
        rank=rank,
        sent=sent,
        received=tuple(
            ReceivedFlow(id=flow, finish_ns=finish_ns, verified=True)
            for flow, finish_ns in (received or {}).items()
        ),
        spans=spans,
        progress=progress,
        late_wakeups_ms=(),
        longest_pause=NO_PAUSE,
    )


def log(**levels: list[Level]) -> Logged:
    """Decisions per flow, in order, and a path for each. The controller knows of all that they have ended."""
    decisions = [
        Decision(
            time_ns=100 + i, flow=flow, level_from=history[i - 1] if i else None, level_to=level, reason="why"
        )
        for flow, history in levels.items()
        for i, level in enumerate(history)
    ]
    paths = [LoggedPath(flow=flow, ports=("h1->s1", "s1->h5")) for flow in levels]
    return Logged(decisions=tuple(decisions), paths=tuple(paths), ended=tuple(levels))


LOG = Log(pruned={}, ended_pruned=(), flow_mods=3, barriers=2, pauses=(NO_PAUSE,))


def collected(
    *parts: Recorded | Logged,
    log: Log = LOG,
    made: Job | None = None,
    requests: tuple[RequestRow, ...] = (),
    samples: tuple[Sample, ...] = (),
    conductor: Conductor | None = None,
) -> RunRecord:
    """The record of a run whose ranks and controller were heard in this order. Without a `conductor`, its
    requests are `requests`."""
    made = made or job(*placed())
    gathered = Gathered(made)
    for part in parts:
        if isinstance(part, Logged):
            gathered.take_logged(part)
        else:
            gathered.take(part)
    return collect(
        job=made,
        fabric=FabricName.MININET,
        conductor=conductor
        or SimpleNamespace(  # type: ignore[arg-type]
            request_rows=lambda pruned, ended: requests, caches=lambda: ()
        ),
        gathered=gathered,
        flows=gathered.flows(),
        tokens=(),
        log=log,
        links=SampleLog(samples).links,
        queues={},
        fidelity=FAITHFUL,
        facts={"mtu": 4200},
        wall_s=12.0,
    )


def test_a_flow_is_put_together_from_both_ends_and_the_controllers_log() -> None:
    record = collected(
        records(0, sent=(sent("f"),)),
        records(4, received={"f": 700}),
        log(f=[Level.P4, Level.P2]),
    )
    (flow,) = record.flows
    assert (flow.src_server, flow.dst_server) == ("h1", "h5")
    assert (flow.submit_ns, flow.permit_ns, flow.lane_wait_ns, flow.finish_ns) == (100, 150, 20, 700)
    assert (flow.level_first, flow.level_last, flow.promotions) == (Level.P4, Level.P2, 1)
    assert (flow.path, flow.verified, flow.request) == (("h1->s1", "s1->h5"), True, 7)
    assert list(record.permit_latency_ms) == [1.5]
    assert record.duration_ns == 700


def test_it_does_not_matter_who_is_heard_first_or_in_how_many_parts() -> None:
    """The receiver, then the controller in two parts, then the sender."""
    receiver, sender = records(4, received={"f": 700}), records(0, sent=(sent("f"),))
    whole = log(f=[Level.P4, Level.P2])
    first = msgspec.structs.replace(whole, decisions=whole.decisions[:1], ended=())
    second = msgspec.structs.replace(whole, decisions=whole.decisions[1:], paths=())
    (at_once,) = collected(sender, receiver, whole).flows
    assert list(collected(receiver, first, second, sender).flows) == [at_once]
    assert list(collected(first, sender, receiver, second).flows) == [at_once]
    assert at_once.promotions == 1


def test_a_flow_whose_row_is_made_takes_no_memory() -> None:
    gathered = Gathered(job(*placed()))
    gathered.take(records(0, sent=(sent("f"), sent("g"))))
    gathered.take_logged(log(f=[Level.P4], g=[Level.P4]))
    gathered.take(records(4, received={"f": 700}))
    assert list(gathered._open) == ["g"]


def test_only_steps_upwards_are_promotions() -> None:
    """P4 to P6 is a demotion, P6 to P5 and P5 to P1 are promotions."""
    record = collected(
        records(0, sent=(sent("f"),)),
        records(4, received={"f": 1}),
        log(f=[Level.P4, Level.P6, Level.P5, Level.P1]),
    )
    assert record.flows[0].promotions == 2
    assert [(d.level_from, d.level_to) for d in record.decisions] == [
        (None, Level.P4),
        (Level.P4, Level.P6),
        (Level.P6, Level.P5),
        (Level.P5, Level.P1),
    ]


def test_a_share_of_a_collective_has_no_receiver() -> None:
    share = sent("c.0", dst=-1, stage=Stage.COLLECTIVE)
    record = collected(records(0, sent=(share,), received={"c.0": 300}), log(**{"c.0": [Level.P2]}))
    (flow,) = record.flows
    assert (flow.dst, flow.dst_server, flow.finish_ns) == (-1, None, 300)


def test_flows_are_in_the_order_of_their_submission() -> None:
    record = collected(
        records(0, sent=(sent("late", submit_ns=300), sent("b", submit_ns=200))),
        records(1, sent=(sent("a", src=1, submit_ns=200),)),
        records(4, received={"late": 400, "a": 400, "b": 400}),
        log(late=[Level.P3], a=[Level.P3], b=[Level.P3]),
    )
    assert [flow.id for flow in record.flows] == ["a", "b", "late"]


def test_a_flow_that_never_arrived_fails_the_run() -> None:
    with pytest.raises(RunFailed, match="flow 'f' was sent and never arrived"):
        collected(records(0, sent=(sent("f"),)), log(f=[Level.P3]))


def test_what_ranks_did_is_kept_with_the_rank() -> None:
    span = Span(kind="compute", label="attention", batch="b", layer=1, start_ns=10, end_ns=20)
    mark = ProgressMark(flow="f", time_ns=15, received_bytes=400)
    record = collected(records(2, spans=(span,), progress=(mark,)), log())
    assert [(s.rank, s.kind, s.start_ns, s.end_ns) for s in record.spans] == [(2, "compute", 10, 20)]
    assert [(p.flow, p.time_ns, p.received_bytes) for p in record.progress] == [("f", 15, 400)]


def test_a_run_lasts_until_its_last_first_token_if_that_comes_after_the_flows() -> None:
    row = request_row(request=1, first_token_ns=1400)
    record = collected(requests=(row,))
    assert (record.requests, record.duration_ns) == ((row,), 1400)


def test_what_the_controller_says_of_pruned_requests_is_in_their_rows_and_counts() -> None:
    """Of four requests, the controller pruned 1 twice and freed it both times, and pruned 3 to its end."""
    made = msgspec.structs.replace(job(*placed()), requests=tuple(prompt(i, 8) for i in range(1, 5)))
    told = msgspec.structs.replace(LOG, pruned={"1": 2, "3": 1}, ended_pruned=("3",))
    record = collected(log=told, made=made, conductor=ServingConductor(made))
    assert [(row.request, row.times_pruned, row.ended_pruned) for row in record.requests] == [
        (1, 2, False),
        (2, 0, False),
        (3, 1, True),
        (4, 0, False),
    ]
    counts = fates(record.requests)
    assert (counts["arrived"], counts["pruned"], counts["ended_pruned"]) == (4, 2, 1)


@pytest.mark.parametrize("pp", [1, 2])
def test_a_unit_has_as_many_batches_at_once_as_it_has_stages(pp: int) -> None:
    assert collected(made=job(*placed(pp=pp))).batches_at_once == pp


def test_links_count_from_the_first_sample() -> None:
    """Probes cross the links before the first sample and do not count. The backlog is absolute."""

    def sample(time_ns: int, sent_bytes: int, backlog: int, drops: int) -> Sample:
        row = PortCounters(
            sent_bytes=(sent_bytes, *ZERO[1:]),
            backlog_bytes=(backlog, *ZERO[1:]),
            drops=(drops, *ZERO[1:]),
            packets=ZERO,
        )
        return Sample(wall_ns=0, time_ns=time_ns, ports={"h1->s1": row})

    record = collected(samples=(sample(0, 5000, 10, 2), sample(250, 9000, 70, 3)))
    assert [(x.time_ns, x.port, x.sent_bytes[0], x.backlog_bytes[0], x.drops[0]) for x in record.links] == [
        (0, "h1->s1", 0, 10, 0),
        (250, "h1->s1", 4000, 70, 1),
    ]


def test_a_run_without_flows_or_samples_is_an_empty_record() -> None:
    record = collected()
    assert (len(record.flows), len(record.links), record.requests, record.duration_ns) == (0, 0, (), 0)
    assert (record.fabric, record.policy, record.wall_s, record.fidelity) == (
        "mininet",
        "fair",
        12.0,
        FAITHFUL,
    )
