"""What limits a run, against numbers worked out by hand and against the parts of each request's TTFT."""

import msgspec
import numpy as np
import pytest
from record_factory import RESOURCES, serving_record

from controller.units import NS_PER_S
from experiments.resolve.jobs import resolve
from experiments.results.limit_words import alike_lines, limit_lines, limits_in_one
from experiments.results.limits import Limit, Limits, Resources, alike, limits
from experiments.results.spans import spans_by_batch
from experiments.results.summary import summarise
from experiments.results.ttft_parts import time_spent
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import MODEL_SCALE, Job
from testbed.record import Fidelity, LinkSample, RequestRow, RequestStatus, RunRecord, SpanRow
from workers.spans import SpanKind

S = NS_PER_S
NO_BYTES = (0,) * 8


def request(number: int, *, arrival: float, start: float, end: float, token: float) -> RequestRow:
    """One that a unit `p0` prefilled in a batch of its own; its KV was at the decode worker at `end`."""
    return RequestRow(
        request=number,
        slo_class="default",
        status=RequestStatus.COMPLETED,
        unit="p0",
        batch=f"b{number}",
        decode_rank=2,
        prompt_tokens=1,
        new_tokens=1,
        local_tokens=0,
        remote_tokens=0,
        arrival_ns=round(arrival * S),
        start_ns=round(start * S),
        prefill_end_ns=round(end * S),
        p2d_end_ns=round(end * S),
        first_token_ns=round(token * S),
        ttft_ns=round((token - arrival) * S),
        slo_ns=S,
        unloaded_ttft_ns=S,
    )


def span(rank: int, kind: SpanKind, begin: float, end: float, batch: str = "b0") -> SpanRow:
    return SpanRow(
        rank=rank,
        kind=kind,
        label="",
        batch=batch,
        layer=0,
        start_ns=round(begin * S),
        end_ns=round(end * S),
    )


def sample(port: str, at: float, sent: int) -> LinkSample:
    return LinkSample(
        time_ns=round(at * S),
        port=port,
        sent_bytes=(0, sent, *NO_BYTES[2:]),
        backlog_bytes=NO_BYTES,
        drops=NO_BYTES,
    )


def record(
    requests: list[RequestRow], spans: list[SpanRow], links: list[LinkSample], policy: str = "fair"
) -> RunRecord:
    return RunRecord(
        policy=policy,
        fabric="sim",
        requests=requests,
        flows=[],
        decisions=[],
        spans=spans,
        links=links,
        progress=[],
        permit_latency_ms=[],
        fidelity=Fidelity(faithful=True, checks=()),
        facts={},
        queues={},
        duration_ns=4 * S,
        wall_s=0.0,
    )


TWO_GPUS = Resources(prefill_gpus=2, link_bps={"a": 8_000, "b": 8_000}, bytes_scale=0.5)
"""Ports that carry 1,000 model bytes a second, which are 500 on the wire."""


def found(one: RunRecord, resources: Resources = TWO_GPUS) -> Limits:
    got = limits(one, resources)
    assert got is not None
    return got


def test_busy_shares_and_parts_of_one_request_by_hand() -> None:
    """In 4 s, GPU 0 computes for 2 s and is in a collective for 1 s; GPU 1 waits for S1 for 0.5 s."""
    spans = [
        span(0, SpanKind.COMPUTE, 1.0, 3.0),
        span(0, SpanKind.COLLECTIVE, 3.0, 4.0),
        span(1, SpanKind.S1_WAIT, 1.0, 1.5),
        span(2, SpanKind.DECODE_STEP, 4.0, 4.5),
    ]
    links = [sample("a", 0, 0), sample("a", 2, 100), sample("a", 3, 600), sample("a", 4, 600)]
    links += [sample("b", 0, 0), sample("b", 4, 40)]
    got = found(record([request(0, arrival=0, start=1, end=4, token=4.5)], spans, links))
    assert got.computing.mean == pytest.approx(2 / 8)
    assert got.computing.busiest == pytest.approx(1 / 2)
    assert got.occupied.mean == pytest.approx(3.5 / 8)
    assert got.occupied.busiest == pytest.approx(1.5 / 2)  # from 1 s to 2 s
    assert got.port == "a"
    assert got.port_busy is not None
    assert got.port_busy.mean == pytest.approx(600 / 2_000)
    assert got.port_busy.busiest == pytest.approx(1.0)  # from 2 s to 3 s
    assert got.limit is Limit.NONE
    assert got.ttft is not None
    # Inside prefill, the mean over GPU 0 and GPU 1.
    assert msgspec.structs.astuple(got.ttft) == pytest.approx((1.0, 0.25, 1.0, 0.5, 1.25, 0.0, 0.5))


@pytest.mark.parametrize(
    ("compute_s", "collective_s", "sent", "limit"),
    [
        (1.4, 0.0, 0, Limit.COMPUTE),
        (0.8, 0.7, 0, Limit.COMPUTE),
        (0.7, 0.8, 0, Limit.NETWORK),
        (0.2, 0.1, 800, Limit.NETWORK),
        (0.2, 0.1, 600, Limit.NONE),
    ],
)
def test_the_limit(compute_s: float, collective_s: float, sent: int, limit: Limit) -> None:
    """Two GPUs and 2 s: busy from 1.4 s each on; a port carries 1,000 wire bytes in that time."""
    spans = [
        one
        for rank in (0, 1)
        for one in (
            span(rank, SpanKind.COMPUTE, 0, compute_s),
            span(rank, SpanKind.COLLECTIVE, compute_s, compute_s + collective_s),
        )
    ]
    links = [sample("a", 0, 0), sample("a", 2, sent)]
    assert found(record([request(0, arrival=0, start=0, end=2, token=2)], spans, links)).limit is limit


def test_a_run_of_less_than_a_second_has_one_share() -> None:
    spans = [span(0, SpanKind.COMPUTE, 0, 0.1)]
    got = found(record([request(0, arrival=0, start=0, end=0.2, token=0.2)], spans, []))
    assert (got.computing.mean, got.computing.busiest) == pytest.approx((0.25, 0.25))
    assert got.port is None


def test_nothing_limits_a_run_without_a_prefill() -> None:
    waiting = msgspec.structs.replace(
        request(0, arrival=0, start=0, end=1, token=1), start_ns=None, prefill_end_ns=None
    )
    assert limits(record([waiting], [], []), TWO_GPUS) is None


def quickstart(policy: str, *settings: str) -> tuple[Job, RunRecord]:
    texts = (f'policies=["{policy}"]', "fabric=sim", "workload.requests=24", *settings)
    job = resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]
    return job, FABRICS["sim"]().run(job, lambda state: None)


@pytest.mark.parametrize("settings", [(), ("serving.chunk_tokens=512",), ("workload.warmup=4",)])
def test_the_parts_are_the_means_of_those_of_each_request(settings: tuple[str, ...]) -> None:
    job, run = quickstart("mfs", *settings)
    got = found(run, Resources.of(job)).ttft
    assert got is not None
    spans = spans_by_batch(run.spans)
    each = [time_spent(row, spans) for row in run.requests if not row.warmup]
    means = [
        np.mean([getattr(one, name.removesuffix("_s") + "_ns") for one in each if one]) / S
        for name in got.__struct_fields__
    ]
    assert msgspec.structs.astuple(got) == pytest.approx(means, rel=1e-6, abs=1e-8)


def test_policies_are_alike_on_a_fast_network_and_differ_on_a_slow_one() -> None:
    fast = [quickstart(policy, "topology.nic_gbps=3200")[1] for policy in ("fair", "stage", "mfs")]
    (group,) = alike(fast)
    assert group.policies == ("fair", "stage", "mfs")
    assert 0 < group.mean < 0.01
    assert alike([quickstart(policy)[1] for policy in ("fair", "mfs")]) == ()


def test_policies_that_completed_different_requests_differ() -> None:
    one = request(0, arrival=0, start=0, end=1, token=1)
    other = request(1, arrival=0, start=0, end=1, token=1)
    runs = [record([one, other], [], [], "fair"), record([one], [], [], "mfs")]
    assert alike(runs) == ()
    assert alike([runs[0], record([one, other], [], [], "sjf")])[0].policies == ("fair", "sjf")


def test_the_words_name_the_limit_its_evidence_and_what_to_change() -> None:
    spans = [span(rank, SpanKind.COMPUTE, 0, 1.66) for rank in (0, 1)]
    links = [sample("a", 0, 0), sample("a", 2, 210)]
    runs = [
        record([request(0, arrival=0, start=0, end=2, token=2)], spans, links, policy)
        for policy in ("fair", "mfs")
    ]
    summary = summarise(
        scenario="s", fabric="sim", seed=1, scale=MODEL_SCALE, records=runs, resources=TWO_GPUS
    )
    first, parts, *_ = limit_lines(summary)
    assert first.startswith("fair: compute-limited: GPUs 83% busy (83% computing), busiest port a 21%;")
    assert parts == "  of the mean TTFT: compute 83%, other 17%"
    (line,) = alike_lines(summary)
    assert line.startswith("fair and mfs hardly differ")
    assert "a, is 21% busy" in line
    assert "topology.nic_gbps" in line


@pytest.mark.parametrize(
    ("port", "rate"),
    [
        ("h3.gpu5->h3.nvs", "lower topology.nvlink_gbps or topology.nic_gbps,"),
        ("h1->s1", "lower topology.nic_gbps,"),
    ],
)
def test_the_advice_names_the_rate_of_the_busiest_port(port: str, rate: str) -> None:
    links = [sample(port, 0, 0), sample(port, 2, 210)]
    spans = [span(rank, SpanKind.COMPUTE, 0, 1.66) for rank in (0, 1)]
    runs = [
        record([request(0, arrival=0, start=0, end=2, token=2)], spans, links, policy)
        for policy in ("fair", "mfs")
    ]
    resources = Resources(prefill_gpus=2, link_bps={port: 8_000}, bytes_scale=0.5)
    summary = summarise(
        scenario="s", fabric="sim", seed=1, scale=MODEL_SCALE, records=runs, resources=resources
    )
    (line,) = alike_lines(summary)
    assert rate in line


def test_where_the_network_limits_the_advice_is_not_more_load() -> None:
    """Port a sends 800 of the 1,000 bytes that it can."""
    links = [sample("a", 0, 0), sample("a", 2, 800)]
    spans = [span(rank, SpanKind.COMPUTE, 0, 0.5) for rank in (0, 1)]
    runs = [
        record([request(0, arrival=0, start=0, end=2, token=2)], spans, links, policy)
        for policy in ("fair", "mfs")
    ]
    summary = summarise(
        scenario="s", fabric="sim", seed=1, scale=MODEL_SCALE, records=runs, resources=TWO_GPUS
    )
    assert next(limit_lines(summary)).startswith("fair: network-limited")
    (line,) = alike_lines(summary)
    assert line.endswith("--ceiling says how much any order of its flows could gain.")
    assert "workload.load" not in line


@pytest.mark.parametrize(
    ("limit", "subject"), [("none", "None is saturated: "), ("network", "All are network-limited: ")]
)
def test_one_line_tells_what_limits_all(limit: str, subject: str) -> None:
    shares = {"mean": 0.5}
    limits = {"limit": limit, "occupied": shares, "computing": shares, "port": None}
    (line,) = limits_in_one([{"policy": policy, "limits": limits} for policy in ("fair", "mfs")])
    assert line == f"{subject}GPUs 50% busy (50% computing)"


def test_a_record_with_all_stages_has_limits() -> None:
    got = found(serving_record(requests=6, layers=3), RESOURCES)
    assert 0 < got.computing.mean < got.occupied.mean <= 1
    assert got.port_busy is not None
    assert got.ttft is not None
