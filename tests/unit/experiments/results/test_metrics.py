"""Each measure on rows small enough to work out by hand."""

import pytest
from result_rows import MS, flow_row, request_row, span_row

from controller.flow import Level, Stage
from experiments.results import metrics
from experiments.results.measures import exposed_s1, flow_measures
from testbed.record import DecisionRow, FlowRow, LinkSample


def decision(time_ns: int, level: Level, previous: Level | None = None) -> DecisionRow:
    return DecisionRow(time_ns=time_ns, flow="f", level_from=previous, level_to=level, reason="why")


def test_a_percentile_interpolates_between_neighbours() -> None:
    # Rank (4 - 1) * 0.9 = 2.7: 30 + 0.7 * (50 - 30) = 44.
    assert metrics.percentile([50, 10, 30, 20], 90) == pytest.approx(44.0)
    assert metrics.percentile([7], 99) == 7.0


def test_measures_without_values_are_none_and_not_nan() -> None:
    assert metrics.percentile([], 50) is None
    assert metrics.mean([]) is None
    assert metrics.slo_attainment([]) is None


def test_slo_attainment_counts_every_arrived_request() -> None:
    rows = [
        request_row(ttft_ns=100 * MS),  # on the dot: met
        request_row(ttft_ns=100 * MS + 1),
        request_row(status="pruned", ttft_ns=50 * MS),
        request_row(status="failed", ttft_ns=None, first_token_ns=None),
    ]
    assert metrics.slo_attainment(rows) == 0.25


def test_collective_completion_runs_from_last_submit_to_last_finish() -> None:
    shares = [
        flow_row(stage=Stage.COLLECTIVE, coflow="c", submit_ns=0, finish_ns=90),
        flow_row(stage=Stage.COLLECTIVE, coflow="c", submit_ns=30, finish_ns=100),
        flow_row(stage=Stage.COLLECTIVE, coflow="d", submit_ns=5, finish_ns=10),
        flow_row(stage=Stage.P2D, coflow="c", submit_ns=0, finish_ns=1000),
    ]
    assert flow_measures(shares, units={}).collective_ns.tolist() == [70, 5]


def test_exposed_s1_is_the_longest_wait_of_any_rank() -> None:
    spans = [
        span_row(0, "s1_wait", 0, 2),
        span_row(0, "s1_wait", 3, 4),  # rank 0 waits 2 + 1 ms
        span_row(1, "s1_wait", 0, 1),
        span_row(1, "compute", 1, 9),
        span_row(1, "s1_wait", 9, 10, layer=1),
    ]
    found = exposed_s1(spans, units={})
    assert found.wait_ns.tolist() == [3 * MS, 1 * MS]
    assert found.layer.tolist() == [0, 1]


def test_a_units_next_batch_closes_the_collectives_of_the_one_before() -> None:
    """b0 and b2 ran on p0, b1 on p1; a name that comes again in b2 is another collective."""

    def share(batch: str, coflow: str, submit_ns: int, finish_ns: int) -> FlowRow:
        return flow_row(
            stage=Stage.COLLECTIVE, batch=batch, coflow=coflow, submit_ns=submit_ns, finish_ns=finish_ns
        )

    flows = [
        share("b0", "x", 0, 10),
        share("b1", "y", 0, 50),
        share("b0", "x", 5, 20),  # over: 20 - 5
        share("b2", "x", 30, 37),  # closes b0
        share("b1", "y", 10, 60),  # b1 is open still: 60 - 10
        share("b2", "x", 31, 40),  # 40 - 31
    ]
    found = flow_measures(flows, units={"b0": "p0", "b1": "p1", "b2": "p0"})
    assert sorted(found.collective_ns.tolist()) == [9, 15, 50]


def test_the_waits_of_batches_side_by_side_are_kept_apart() -> None:
    spans = [
        span_row(0, "s1_wait", 0, 2, batch="b0"),
        span_row(4, "s1_wait", 0, 5, batch="b1"),
        span_row(1, "s1_wait", 0, 3, batch="b0"),  # over: 3
        span_row(0, "s1_wait", 10, 14, batch="b2"),  # 4
        span_row(4, "s1_wait", 6, 7, batch="b1"),  # 5 + 1
    ]
    found = exposed_s1(spans, units={"b0": "p0", "b1": "p1", "b2": "p0"})
    assert sorted(found.wait_ns.tolist()) == [3 * MS, 4 * MS, 6 * MS]


def test_promotions_and_checked_payloads_are_counted() -> None:
    flows = [
        flow_row(promotions=2, verified=True),
        flow_row(promotions=1, verified=False),
        flow_row(verified=None),
    ]
    found = flow_measures(flows, units={})
    assert (found.promotions, found.checked, found.failed) == (3, 2, 1)


def test_earliness_is_what_is_left_to_the_deadline_of_s3_and_never_negative() -> None:
    flows = [
        flow_row(deadline_ns=100, finish_ns=60),
        flow_row(deadline_ns=100, finish_ns=130),
        flow_row(deadline_ns=None, finish_ns=10),
        flow_row(stage=Stage.KV_REUSE, deadline_ns=100, finish_ns=10),
    ]
    found = flow_measures(flows, units={})
    assert found.earliness_ns.tolist() == [40, 0]
    assert found.p2d_slack_ns.tolist() == [40, -30]


def test_stage_completion_includes_the_wait_for_a_permit() -> None:
    flows = [flow_row(submit_ns=10, permit_ns=25, finish_ns=50)]
    times = flow_measures(flows, units={}).stage_ns
    assert {stage: times[stage].tolist() for stage in Stage} == {
        Stage.KV_REUSE: [],
        Stage.COLLECTIVE: [],
        Stage.P2D: [40],
    }


def test_level_periods_cover_a_flow_from_permit_to_finish() -> None:
    flow = flow_row(submit_ns=0, permit_ns=10, finish_ns=100)
    history = [
        decision(0, Level.P6),
        decision(5, Level.P5, Level.P6),  # before the permit: nothing was sent at P6
        decision(60, Level.P1, Level.P5),
        decision(120, Level.SCAVENGER, Level.P1),  # after the end
    ]
    periods = metrics.level_periods(flow, history)
    assert [(p.start_ns, p.end_ns, p.level) for p in periods] == [
        (10, 60, Level.P5),
        (60, 100, Level.P1),
    ]


def test_a_flow_without_decisions_stays_at_its_first_level() -> None:
    (period,) = metrics.level_periods(flow_row(permit_ns=3, finish_ns=9), [])
    assert (period.start_ns, period.end_ns, period.level) == (3, 9, Level.P3)


def test_link_rates_are_model_rates() -> None:
    def sample(time_ns: int, p2_bytes: int) -> LinkSample:
        sent = (0, 0, p2_bytes, 0, 0, 0, 0, 0)
        return LinkSample(
            time_ns=time_ns, port="h1->s1", sent_bytes=sent, backlog_bytes=(0,) * 8, drops=(0,) * 8
        )

    # 1,000 wire bytes at bytes_scale 0.01 are 100,000 model bytes = 800,000 bits in 1 ms: 0.8 Gb/s.
    samples = [sample(1 * MS, 1000), sample(0, 0), sample(3 * MS, 1000)]
    rate = metrics.link_rates(samples, 0.01)["h1->s1"]
    assert rate.time_ns.tolist() == [0, 1 * MS, 3 * MS]
    assert rate.bps[:, Level.P2].tolist() == pytest.approx([0.8e9, 0.0])
    assert not rate.bps[:, Level.P1].any()


def test_one_sample_of_a_link_has_no_rate() -> None:
    only = LinkSample(time_ns=0, port="h1->s1", sent_bytes=(9,) * 8, backlog_bytes=(0,) * 8, drops=(0,) * 8)
    assert metrics.link_rates([only], 1.0) == {}


def test_the_parts_of_a_ttft_add_up_to_it() -> None:
    # Prefill 10..70 ms on two ranks: S1 wait (4 + 0) / 2, compute (30 + 34) / 2,
    # collective (24 + 22) / 2, and so 60 - 2 - 32 - 23 = 3 ms of something else.
    spans = [
        span_row(0, "s1_wait", 10, 14),
        span_row(0, "compute", 14, 44),
        span_row(0, "collective", 44, 68),
        span_row(1, "compute", 10, 44),
        span_row(1, "collective", 44, 66),
        span_row(8, "decode", 90, 100),
    ]
    split = metrics.time_spent(request_row(), metrics.spans_by_batch(spans))
    assert split == metrics.TimeSpent(
        queue_ns=10 * MS,
        s1_wait_ns=2 * MS,
        compute_ns=32 * MS,
        collective_ns=23 * MS,
        other_ns=3 * MS,
        p2d_tail_ns=20 * MS,
        decode_ns=10 * MS,
    )


def test_p2d_that_ends_before_prefill_has_no_tail() -> None:
    split = metrics.time_spent(request_row(p2d_end_ns=60 * MS), {})
    assert split is not None
    assert (split.p2d_tail_ns, split.decode_ns) == (0, 30 * MS)


def test_a_request_without_a_first_token_has_no_split() -> None:
    assert metrics.time_spent(request_row(first_token_ns=None), {}) is None
