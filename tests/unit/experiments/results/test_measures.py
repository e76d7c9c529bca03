"""Each measure on rows small enough to work out by hand."""

import msgspec
import pytest
from record_factory import micro_record, serving_record
from result_rows import MS, flow_row, request_row, span_row

from controller.flow import SERVING_STAGES, Stage
from experiments.resolve.jobs import resolve
from experiments.results.measures import WarmUp, exposed_s1, flow_measures, measure
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.record import FlowRow


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
    found = exposed_s1(spans)
    assert found.wait_ns.tolist() == [3 * MS, 1 * MS]
    assert found.layer.tolist() == [0, 1]


def test_a_units_next_batch_closes_the_collectives_of_the_one_before() -> None:
    """b0 and b2 ran on p0, and b1 on p1. A name that occurs again in b2 is another collective."""

    def share(batch: str, coflow: str, submit_ns: int, finish_ns: int) -> FlowRow:
        return flow_row(
            stage=Stage.COLLECTIVE, batch=batch, coflow=coflow, submit_ns=submit_ns, finish_ns=finish_ns
        )

    flows = [
        share("b0", "x", 0, 10),
        share("b1", "y", 0, 50),
        share("b0", "x", 5, 20),  # ends it: 20 - 5
        share("b2", "x", 30, 37),  # closes b0
        share("b1", "y", 10, 60),  # b1 is still open: 60 - 10
        share("b2", "x", 31, 40),  # 40 - 31
    ]
    found = flow_measures(flows, units={"b0": "p0", "b1": "p1", "b2": "p0"})
    assert sorted(found.collective_ns.tolist()) == [9, 15, 50]


def test_the_waits_of_batches_side_by_side_are_kept_apart() -> None:
    spans = [
        span_row(0, "s1_wait", 0, 2, batch="b0"),
        span_row(4, "s1_wait", 0, 5, batch="b1"),
        span_row(1, "s1_wait", 0, 3, batch="b0"),  # the longest of b0: 3
        span_row(0, "s1_wait", 10, 14, batch="b2"),  # 4
        span_row(4, "s1_wait", 6, 7, batch="b1"),  # 5 + 1
    ]
    found = exposed_s1(spans)
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
    assert found.lateness_ns.tolist() == [0, 30]
    assert found.p2d_slack_ns.tolist() == [40, -30]


def test_stage_completion_includes_the_wait_for_a_permit() -> None:
    flows = [flow_row(submit_ns=10, permit_ns=25, finish_ns=50)]
    times = flow_measures(flows, units={}).stage_ns
    assert {stage: times[stage].tolist() for stage in SERVING_STAGES} == {
        Stage.KV_REUSE: [],
        Stage.COLLECTIVE: [],
        Stage.P2D: [40],
    }


def test_collectives_of_a_pipeline_of_twenty_stages_are_kept_until_they_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A unit runs twenty batches at once, each with a collective of two shares. The second share of each
    comes 100 ns after the first, in another block. A unit that runs one at once never comes back to one, so
    memory need not hold the first shares: each is then as good as a collective of its own."""
    monkeypatch.setattr("testbed.columns.BLOCK_ROWS", 7)

    def share(batch: int, submit_ns: int) -> FlowRow:
        return flow_row(
            stage=Stage.COLLECTIVE,
            batch=f"b{batch}",
            coflow=f"c{batch}",
            submit_ns=submit_ns,
            finish_ns=submit_ns + 1,
        )

    flows = [*(share(i, i) for i in range(20)), *(share(i, 100 + i) for i in range(20))]
    requests = [request_row(request=i, batch=f"b{i}", unit="p0") for i in range(20)]
    record = msgspec.structs.replace(micro_record(), flows=flows, requests=requests, batches_at_once=20)
    assert measure(record).flows.collective_ns.tolist() == [1] * 20
    one_by_one = msgspec.structs.replace(record, batches_at_once=1)
    assert len(measure(one_by_one).flows.collective_ns) > 20


def test_a_micro_flow_may_have_a_name_that_background_decoding_has_in_serving() -> None:
    flow = flow_row(id="decode.s0.8-9", batch=None, request=None, submit_ns=0, finish_ns=7)
    assert flow_measures([flow], units={}, serving=False).stage_ns[Stage.P2D].tolist() == [7]
    assert flow_measures([flow], units={}, serving=True).stage_ns[Stage.P2D].tolist() == []


def test_flows_of_a_micro_run_count_whatever_their_names_and_in_serving_decoding_does_not() -> None:
    """A flow of 125 MB alone at 10 Gb/s takes 100 ms. With requests, the same rows are of a serving run."""
    flows = [{"id": "decode.x", "src": "h1", "dst": "h3", "bytes": 125_000_000, "stage": "S3"}]
    texts = ['policies=["fair"]', "fabric=sim", "workload.flows=" + msgspec.json.encode(flows).decode()]
    (job,) = resolve(load_scenario("two-flows", [override(text) for text in texts])).jobs
    micro = FABRICS["sim"]().run(job, lambda progress: None)
    assert measure(micro).flows.stage_ns[Stage.P2D].tolist() == [100 * MS]
    serving = msgspec.structs.replace(micro, requests=(request_row(),))
    assert measure(serving).flows.stage_ns[Stage.P2D].tolist() == []


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_measures_do_not_depend_on_the_blocks_that_rows_come_in(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = serving_record(requests=6, layers=3)
    whole = measure(record)
    monkeypatch.setattr("testbed.columns.BLOCK_ROWS", rows)
    parts = measure(record)
    assert len(whole.flows.collective_ns) > 5
    assert parts.flows.collective_ns.tolist() == whole.flows.collective_ns.tolist()
    assert parts.flows.p2d_slack_ns.tolist() == whole.flows.p2d_slack_ns.tolist()
    assert parts.exposed_s1.wait_ns.tolist() == whole.exposed_s1.wait_ns.tolist()
    assert parts.exposed_s1.layer.tolist() == whole.exposed_s1.layer.tolist()
    for stage in SERVING_STAGES:
        assert parts.flows.stage_ns[stage].tolist() == whole.flows.stage_ns[stage].tolist()


def test_a_collective_without_a_name_is_its_share_alone() -> None:
    shares = [
        flow_row(id="a", stage=Stage.COLLECTIVE, submit_ns=0, finish_ns=4),
        flow_row(id="b", stage=Stage.COLLECTIVE, submit_ns=1, finish_ns=10),
        flow_row(id="c", stage=Stage.COLLECTIVE, coflow="x", submit_ns=2, finish_ns=20),
        flow_row(id="d", stage=Stage.COLLECTIVE, coflow="x", submit_ns=3, finish_ns=5),
    ]
    assert flow_measures(shares, units={}).collective_ns.tolist() == [4, 9, 17]


def test_requests_of_the_warm_up_do_not_count_and_flows_without_a_request_do() -> None:
    flows = [
        flow_row(request=request, submit_ns=submit_ns, finish_ns=submit_ns + took_ns, verified=True)
        for request, submit_ns, took_ns in ((0, 50, 1), (None, 50, 2), (1, 50, 3), (1, 49, 4), (None, 10, 5))
    ]
    found = flow_measures(flows, units={}, warmup=WarmUp(50, frozenset({0})))
    assert found.stage_ns[Stage.P2D].tolist() == [2, 3]
    assert found.checked == 5
