"""Reused KV that is fetched while its request is queued, and layer by layer, on the emulated fabric."""

import emulated_world as world
import msgspec
import pytest

from controller.flow import Stage
from testbed.job import Job, Request
from testbed.record import FlowRow, RunRecord
from testbed.topology import star

BLOCK_TOKENS = 16
A, B = tuple(range(6)), tuple(range(100, 106))


def fetching_job() -> Job:
    """p0 computes prompt A and p1 prompt B. Later a long prompt keeps each unit busy for about 150 ms.

    Meanwhile each gets a request that begins with the prompt of the other unit, and queues it.
    """
    arrivals = [(0.1, A), (0.1, B), (1.5, tuple(range(200, 214))), (1.5, tuple(range(300, 314)))]
    arrivals += [(1.51, (*B, 400)), (1.51, (*A, 500))]
    requests = tuple(
        Request(
            id=number,
            arrival_ns=round(arrival_s * world.SECOND),
            prompt_tokens=len(blocks) * BLOCK_TOKENS + 5,
            output_tokens=1,
            blocks=blocks,
            block_tokens=BLOCK_TOKENS,
            slo_ns=world.SECOND,
        )
        for number, (arrival_s, blocks) in enumerate(arrivals)
    )
    made = world.serving_job(star(servers=5, nic_bps=30_000_000))
    serving = msgspec.structs.replace(made.serving, fetch_early=True, fetch_ahead=0)
    return msgspec.structs.replace(made, serving=serving, requests=requests)


@pytest.fixture(scope="module")
def record() -> RunRecord:
    return world.run(fetching_job())


def fetched(record: RunRecord, request: int) -> list[FlowRow]:
    flows = [f for f in record.flows if f.request == request and f.stage is Stage.KV_REUSE]
    return sorted(flows, key=lambda flow: flow.layer or 0)


def test_all_are_served_and_their_kv_is_what_was_sent(record: RunRecord) -> None:
    assert [row.status for row in record.requests] == ["completed"] * 6
    assert all(flow.verified for flow in record.flows)
    for request in (4, 5):
        assert record.requests[request].remote_tokens == 96
        assert sum(flow.size_bytes for flow in fetched(record, request)) == 96 * 1024 * 3


@pytest.mark.parametrize(("request_id", "fetch"), [(4, "p0.f4"), (5, "p1.f5")])
def test_layer_0_is_sent_for_from_the_queue_and_the_others_with_the_batch(
    record: RunRecord, request_id: int, fetch: str
) -> None:
    row = record.requests[request_id]
    flows = fetched(record, request_id)
    assert [(flow.batch, flow.layer) for flow in flows] == [(fetch, 0), (fetch, 1), (fetch, 2)]
    assert row.start_ns is not None
    assert flows[0].submit_ns < row.start_ns
    for flow in flows[1:]:
        before = [
            span.end_ns
            for span in record.spans
            if (span.batch, span.layer) == (row.batch, (flow.layer or 0) - 1)
        ]
        assert flow.submit_ns >= max(before)


def test_compute_of_a_layer_waits_for_what_was_sent_for_early(record: RunRecord) -> None:
    for request in (4, 5):
        for flow in fetched(record, request):
            key = (flow.dst, record.requests[request].batch, flow.layer, "compute")
            computes = [s.start_ns for s in record.spans if (s.rank, s.batch, s.layer, s.kind) == key]
            assert flow.finish_ns <= min(computes)


def test_the_caches_tell_what_was_found_where(record: RunRecord) -> None:
    """6 of the 7 blocks of each later request are on the other unit. Nothing else is cached.

    Each unit therefore misses 6 + 14 blocks of its first and its long prompt, and 1 of its last one.
    """
    found = [(row.unit, row.local_blocks, row.remote_blocks, row.missed_blocks) for row in record.caches]
    assert found == [("p0", 0, 6, 21), ("p1", 0, 6, 21)]
