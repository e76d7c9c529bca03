"""Split prompts and preemption on the emulated fabric: real ranks pause, run another batch and go on."""

import emulated_world as world
import msgspec
import pytest

from controller.flow import Stage
from testbed.job import Job, Request
from testbed.record import RunRecord, SpanRow
from testbed.topology import star

LONG, OTHER, SHORT = range(3)


def request(number: int, tokens: int, *, arrival_s: float, due_s: float, unloaded_s: float) -> Request:
    return Request(
        id=number,
        arrival_ns=round(arrival_s * world.SECOND),
        prompt_tokens=tokens,
        output_tokens=1,
        blocks=(),
        block_tokens=16,
        slo_ns=round((due_s - arrival_s) * world.SECOND),
        unloaded_ns=round(unloaded_s * world.SECOND),
    )


def batching_job() -> Job:
    """Units take turns, so p0 gets the long and the short prompt.

    It first computes 1600 tokens of the long one, at a few hundred milliseconds per layer, and pauses
    after each layer. In the first pause the short one goes first: it is due at 31 s and claims to need
    30 s, so it cannot wait longer than until 1 s.
    """
    requests = (
        request(LONG, 2000, arrival_s=0.1, due_s=90, unloaded_s=1),
        request(OTHER, 96, arrival_s=0.1, due_s=90, unloaded_s=1),
        request(SHORT, 20, arrival_s=0.15, due_s=31, unloaded_s=30),
    )
    made = world.serving_job(star(servers=5, nic_bps=60_000_000))
    serving = msgspec.structs.replace(
        made.serving, max_batch_tokens=4096, chunk_tokens=1600, preempt_layers=1, batching="deadline"
    )
    return msgspec.structs.replace(made, serving=serving, requests=requests)


@pytest.fixture(scope="module")
def record() -> RunRecord:
    return world.run(batching_job())


def of_batch(record: RunRecord, batch: str) -> list[SpanRow]:
    return [span for span in record.spans if span.batch == batch and span.kind in ("compute", "collective")]


def test_all_are_served_and_every_part_of_the_kv_arrives(record: RunRecord) -> None:
    """The long prompt sends 1600, then 400 tokens: 1024 B per token and layer, 3 layers."""
    assert [row.status for row in record.requests] == ["completed"] * 3
    assert all(flow.verified for flow in record.flows)
    row = record.requests[LONG]
    assert (row.earlier_batches, row.batch, row.new_tokens) == (("p0.b0",), "p0.b2", 2000)
    sizes: dict[str | None, int] = {}
    for flow in record.flows:
        if flow.stage is Stage.P2D and flow.request == LONG:
            sizes[flow.batch] = sizes.get(flow.batch, 0) + flow.size_bytes
    assert sizes == {"p0.b0": 1600 * 1024 * 3, "p0.b2": 400 * 1024 * 3}
    last = max(f.finish_ns for f in record.flows if f.stage is Stage.P2D and f.request == LONG)
    assert row.p2d_end_ns == last


def test_the_short_prompt_is_computed_between_two_layers_of_the_long_one(record: RunRecord) -> None:
    assert record.requests[SHORT].batch == "p0.b1"
    paused, first = of_batch(record, "p0.b0"), of_batch(record, "p0.b1")
    before = [span for span in paused if span.layer == 0]
    after = [span for span in paused if span.layer in (1, 2)]
    assert max(span.end_ns for span in before) <= min(span.start_ns for span in first)
    assert max(span.end_ns for span in first) <= min(span.start_ns for span in after)


def test_each_rank_says_when_it_had_paused(record: RunRecord) -> None:
    """Both ranks pause before layers 1 and 2 of both batches of the long prompt, and in no other batch."""
    pauses = sorted(
        (s.batch, s.layer, s.rank) for s in record.spans if s.kind == "paused" and s.rank in (0, 1)
    )
    assert pauses == [
        (batch, layer, rank) for batch in ("p0.b0", "p0.b2") for layer in (1, 2) for rank in (0, 1)
    ]
