"""Faults on the simulated fabric, worked out on paper. A NIC carries 1.25 MB/ms: 125 MB take 100 ms alone."""

from collections.abc import Sequence

import msgspec
import pytest

from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabric import JobRefused, RunFailed
from testbed.fabrics import FABRICS
from testbed.faults import (
    ControllerRestart,
    DecodeLoss,
    Fault,
    LinkFault,
    RankPause,
    Straggler,
    SwitchRestart,
    UnitLoss,
)
from testbed.job import Job
from testbed.record import RequestRow, RunRecord
from workers.spans import SpanKind

MS = 1_000_000


def job(rows: Sequence[tuple[str, str, float, str]], policy: str, *settings: str) -> Job:
    """`rows` have the id, the route, 10**6 bytes and the stage of each flow."""
    flows = [
        {"id": id_, "src": route[:2], "dst": route[-2:], "bytes": round(mb * 1e6), "stage": stage}
        for id_, route, mb, stage in rows
    ]
    texts = [f'policies=["{policy}"]', "fabric=sim", "topology.servers=5", "topology.nic_gbps=10"]
    texts += [f"workload.flows={msgspec.json.encode(flows).decode()}", *settings]
    return resolve(load_scenario("two-flows", [override(text) for text in texts])).jobs[0]


def run(a_job: Job, *faults: Fault) -> RunRecord:
    record = FABRICS["sim"]().run(msgspec.structs.replace(a_job, faults=faults), lambda progress: None)
    assert [check.name for check in record.fidelity.checks if not check.ok] == []
    return record


def ends_ms(a_job: Job, *faults: Fault) -> dict[str, float]:
    return {row.id: row.finish_ns / MS for row in run(a_job, *faults).flows}


def link(name: str, share: float, from_ms: float, to_ms: float | None = None) -> LinkFault:
    src, dst = name.replace("->", "-").split("-")
    ports = (f"{src}->{dst}",) if ">" in name else (f"{src}->{dst}", f"{dst}->{src}")
    to_ns = None if to_ms is None else round(to_ms * MS)
    return LinkFault(link=name, ports=ports, share=share, from_ns=round(from_ms * MS), to_ns=to_ns)


ONE = [("a", "h1->h2", 125, "S3")]


def test_a_flow_on_a_link_at_half_rate_for_40_ms_ends_20_ms_later() -> None:
    """25 MB by 20 ms, 25 more by 60 ms, and the other 75 MB in 60 ms."""
    assert ends_ms(job(ONE, "fair"), link("h1->s1", 0.5, 20, 60)) == {"a": 120}


def test_a_link_that_is_down_for_a_second_delays_a_flow_by_a_second() -> None:
    assert ends_ms(job(ONE, "fair"), link("s1-h2", 0, 50, 1050)) == {"a": 1100}


def test_a_switch_that_restarts_delays_all_flows_through_it() -> None:
    """Both are half done after 50 ms, and nothing passes for 30 ms."""
    flows = [("a", "h1->h2", 125, "S3"), ("b", "h3->h4", 125, "S3")]
    ports = tuple(f"{a}->{b}" for h in ("h1", "h2", "h3", "h4", "h5") for a, b in ((h, "s1"), ("s1", h)))
    restart = SwitchRestart(switch="s1", link="s1", ports=ports, share=0.0, from_ns=50 * MS, to_ns=80 * MS)
    assert ends_ms(job(flows, "fair"), restart) == {"a": 130, "b": 130}


def test_a_restart_of_the_controller_is_refused_by_its_name() -> None:
    with pytest.raises(JobRefused, match=r"^faults: controller-restart can"):
        run(job(ONE, "fair"), ControllerRestart(from_ns=0, to_ns=MS))


def test_a_fault_that_ends_where_the_next_begins() -> None:
    """25 MB by 20 ms, none by 30, a quarter of the rate until 70: 12.5 MB. 87.5 MB take 70 ms more."""
    faults = [link("h1-s1", 0, 20, 30), link("h1->s1", 0.25, 30, 70)]
    assert ends_ms(job(ONE, "fair"), *faults) == {"a": 140}


def test_one_direction_of_a_link_is_not_the_other() -> None:
    """Only what h1 sends is slower, and only from 40 ms on: half in 40, half in 80 ms."""
    rows = [("out", "h1->h2", 100, "S3"), ("in", "h2->h1", 100, "S3")]
    assert ends_ms(job(rows, "fair"), link("h1->s1", 0.5, 40)) == {"out": 120, "in": 80}


def test_the_more_urgent_flow_gets_what_is_left_of_a_link() -> None:
    """S1 has all of it: 25 MB by 20 ms, 25 MB by 60 ms at half rate. Then S3 has it: 50 MB in 40 ms."""
    rows = [("s1", "h1->h2", 50, "S1"), ("s3", "h1->h3", 50, "S3")]
    assert ends_ms(job(rows, "stage"), link("h1->s1", 0.5, 20, 60)) == {"s1": 60, "s3": 100}


def test_flows_that_share_a_slower_link_share_what_it_has() -> None:
    """At 0.2 of the rate, two have 0.125 MB/ms each until 200 ms: 25 of 50 MB. Then 0.625 MB/ms: 40 ms."""
    rows = [("one", "h1->h2", 50, "S3"), ("two", "h1->h3", 50, "S3")]
    assert ends_ms(job(rows, "fair"), link("h1->s1", 0.2, 0, 200)) == {"one": 240, "two": 240}


def test_with_links_of_their_own_each_stage_meets_the_fault() -> None:
    """40 ms each on full links; at half rate from the start, 80 ms."""
    rows = [("s1", "h1->h2", 50, "S1"), ("s3", "h1->h3", 50, "S3")]
    a_job = job(rows, "stage", "simulation.separate=true")
    assert ends_ms(a_job, link("h1->s1", 0.5, 0)) == {"s1": 80, "s3": 80}


def test_coflows_in_exact_order_get_on_after_an_outage() -> None:
    """`sebf` sends the smaller first: 12.5 MB in 10 ms, of which 5 ms are lost; then 125 MB."""
    rows = [("large", "h1->h2", 125, "S3"), ("small", "h1->h3", 12.5, "S3")]
    a_job = job(rows, "sebf", "simulation.order=exact")
    assert ends_ms(a_job) == {"small": 10, "large": 110}
    assert ends_ms(a_job, link("h1-s1", 0, 4, 9)) == {"small": 15, "large": 115}


def test_an_idle_port_that_is_down_passes_no_burst() -> None:
    """With a bucket of 1000 bytes an idle port passes these at once, but not before it is up."""
    burst = "simulation.overheads.burst_bytes=1000", "scale.bytes_scale=1", "scale.time_dilation=1"
    a_job = job([("tiny", "h1->h2", 0.0005, "S3")], "fair", *burst)
    assert ends_ms(a_job, link("h1-s1", 0, 0, 30))["tiny"] == pytest.approx(30, abs=1e-3)


def test_the_least_loaded_path_avoids_a_link_that_is_down() -> None:
    """Two spines: with one of them cut off, all of 125 MB goes over the other, in 100 ms."""
    texts = [
        "topology.kind=leaf-spine",
        "topology.leaves=2",
        "topology.spines=2",
        "topology.hosts_per_leaf=2",
    ]
    a_job = job([("a", "h1->h4", 125, "S3")], "fair", *texts, "simulation.paths=least-loaded")
    first = next(name for name in (link.id for link in a_job.topology.links) if "leaf1->spine" in name)
    other = first.split("->")[1]
    fault = LinkFault(link="x", ports=(first, f"{other}->leaf1"), share=0.0, from_ns=0, to_ns=None)
    record = run(a_job, fault)
    assert record.flows[0].finish_ns == 100 * MS
    assert first not in record.flows[0].path


# --- down for good ----------------------------------------------------------------------------------


def test_a_run_that_waits_for_a_link_that_stays_down_ends_and_names_it() -> None:
    with pytest.raises(RunFailed, match=r"link h1-s1 down from 0\.05 s on .*still on their way: a"):
        run(job([*ONE, ("b", "h3->h4", 125, "S3")], "mfs"), link("h1-s1", 0, 50))


def test_a_link_that_stays_down_and_that_nobody_needs_is_no_obstacle() -> None:
    assert ends_ms(job(ONE, "fair"), link("h3-s1", 0, 50)) == {"a": 100}


def test_a_fault_after_the_end_does_not_make_the_run_longer() -> None:
    record = run(job(ONE, "fair"), link("h1-s1", 0, 500, 600))
    assert record.duration_ns == 100 * MS


# --- stragglers -------------------------------------------------------------------------------------


def alone() -> Job:
    """One request on one GPU, and one that decodes: nothing but compute before its S3."""
    texts = ["fabric=sim", "policies=[fair]", "model=llama-3-8b", "topology.servers=2"]
    texts += ["units.prefill_units=1", "units.ranks_per_unit=1", "units.decode_ranks=1"]
    texts += ["workload.requests=1", "workload.rate=1", "slo.multiple=3"]
    return resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]


def straggler(rank: int, factor: float, from_ns: int = 0, to_ns: int | None = None) -> Straggler:
    return Straggler(rank=rank, factor=factor, from_ns=from_ns, to_ns=to_ns)


def only_request(*faults: Fault) -> RequestRow:
    (row,) = run(alone(), *faults).requests
    return row


def took(row: RequestRow) -> tuple[int, int]:
    """The nanoseconds of prefill, and of the first decode step."""
    assert row.start_ns is not None
    assert row.prefill_end_ns is not None
    assert row.p2d_end_ns is not None
    assert row.first_token_ns is not None
    return row.prefill_end_ns - row.start_ns, row.first_token_ns - row.p2d_end_ns


def test_prefill_on_a_rank_twice_as_slow_takes_twice_as_long() -> None:
    """Each step is rounded to a nanosecond, before it is doubled."""
    prefill, decode = took(only_request())
    assert took(only_request(straggler(0, 2.0))) == (2 * prefill, decode)


def test_a_decode_rank_three_times_as_slow_has_a_first_step_three_times_as_long() -> None:
    prefill, decode = took(only_request())
    slow = run(alone(), straggler(1, 3.0))
    assert took(slow.requests[0]) == (prefill, 3 * decode)
    (step,) = (span for span in slow.spans if span.kind is SpanKind.DECODE_STEP)
    assert step.end_ns == slow.requests[0].first_token_ns


def test_a_rank_that_is_slow_for_40_ms_loses_half_of_them() -> None:
    """From 10 to 50 ms after its start it gets done what takes 20 ms, in the middle of steps."""
    before = only_request()
    assert before.start_ns is not None
    begin = before.start_ns + 10 * MS
    slow = straggler(0, 2.0, begin, begin + 40 * MS)
    assert took(before)[0] > 60 * MS
    assert took(only_request(slow))[0] == pytest.approx(took(before)[0] + 20 * MS, abs=2)


def test_the_other_ranks_of_a_unit_wait_for_a_straggler_in_collectives() -> None:
    texts = ["fabric=sim", "policies=[fair]", "workload.requests=1", "workload.rate=1"]
    a_job = resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]
    plain = run(a_job)
    ranks = sorted({span.rank for span in plain.spans if span.kind is SpanKind.COMPUTE})
    slow = run(a_job, straggler(ranks[0], 2.0))

    def spent(record: RunRecord, rank: int, kind: SpanKind) -> int:
        return sum(s.end_ns - s.start_ns for s in record.spans if s.rank == rank and s.kind is kind)

    assert spent(slow, ranks[0], SpanKind.COMPUTE) == 2 * spent(plain, ranks[0], SpanKind.COMPUTE)
    assert spent(slow, ranks[1], SpanKind.COMPUTE) == spent(plain, ranks[1], SpanKind.COMPUTE)
    assert spent(slow, ranks[1], SpanKind.COLLECTIVE) > spent(plain, ranks[1], SpanKind.COLLECTIVE)


# --- pauses -----------------------------------------------------------------------------------------


def test_a_rank_that_is_paused_in_the_middle_of_its_prefill_ends_it_that_much_later() -> None:
    before = only_request()
    assert before.start_ns is not None
    begin = before.start_ns + 10 * MS
    row = only_request(RankPause(rank=0, from_ns=begin, to_ns=begin + 70 * MS))
    assert took(row) == (took(before)[0] + 70 * MS, took(before)[1])


def test_a_paused_rank_begins_nothing() -> None:
    """Its request is there at once, and its batch begins when the pause is over."""
    before = only_request()
    row = only_request(RankPause(rank=0, from_ns=0, to_ns=before.arrival_ns + 500 * MS))
    assert before.start_ns is not None
    assert row.start_ns == before.arrival_ns + 500 * MS
    assert took(row) == took(before)


def test_the_first_decode_step_waits_for_the_end_of_a_pause() -> None:
    before = only_request()
    assert before.p2d_end_ns is not None
    end = before.p2d_end_ns + 300 * MS
    row = only_request(RankPause(rank=1, from_ns=0, to_ns=end))
    assert row.p2d_end_ns == before.p2d_end_ns
    assert row.first_token_ns == end + took(before)[1]


def test_a_paused_rank_holds_its_unit_up_in_the_middle_of_its_collectives() -> None:
    """The other three wait for it in the next collective. The unit loses the pause, but for the little that
    the rank would have waited itself, and for S3 that is out of the way of collectives afterwards."""
    texts = ["fabric=sim", "policies=[fair]", "workload.requests=1", "workload.rate=1"]
    a_job = resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]
    (plain,) = run(a_job).requests
    assert plain.start_ns is not None
    assert plain.prefill_end_ns is not None
    record = run(a_job)
    rank = next(span.rank for span in record.spans if span.kind is SpanKind.COLLECTIVE)
    middle = (plain.start_ns + plain.prefill_end_ns) // 2
    (held,) = run(a_job, RankPause(rank=rank, from_ns=middle, to_ns=middle + 200 * MS)).requests
    assert held.prefill_end_ns is not None
    later = held.prefill_end_ns - plain.prefill_end_ns
    assert 190 * MS <= later <= 202 * MS


# --- losses -----------------------------------------------------------------------------------------


def quickstart() -> Job:
    texts = ["fabric=sim", "policies=[mfs]", "workload.requests=24", "workload.rate=24"]
    return resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]


@pytest.mark.parametrize("lost", ["unit", "worker"])
def test_no_request_of_a_run_with_a_loss_is_without_an_end(lost: str) -> None:
    """`run` looks at the invariants: flows of the lost complete, and the run waits for them."""
    begin = 700 * MS
    fault: Fault = UnitLoss(unit="p0", from_ns=begin, to_ns=None)
    if lost == "worker":
        fault = DecodeLoss(worker=0, from_ns=begin, to_ns=None)
    record = run(quickstart(), fault)
    failed = [row for row in record.requests if row.lost_to is not None]
    served = [row for row in record.requests if row.first_token_ns is not None]
    assert failed
    assert len(failed) + len(served) == 24
    if lost == "unit":
        assert {row.unit for row in record.requests if (row.start_ns or 0) > begin} == {"p1"}
        assert {row.unit for row in failed} == {"p0"}
    else:
        ranks = {row.decode_rank for row in failed}
        assert len(ranks) == 1
        assert not ranks & {row.decode_rank for row in served if (row.start_ns or 0) > begin}
