"""What units have still to send, worked out by hand in the tiny world."""

import msgspec
import pytest
from serving_world import job, placed, prompt

from testbed.job import Job, ReuseRule
from testbed.serving.cache.assignment import Assigned
from testbed.serving.routing.collectives_ahead import CollectivesAhead
from testbed.serving.routing.traffic_ahead import TrafficAhead

TOPOLOGY, PLACEMENT = placed()
ITEM = Assigned(request=prompt(0, 8, (1,)), replica=0, local_blocks=1, fetches=())
"""8 tokens on the first replica of p0, 4 of which are cached there."""


def test_a_unit_has_the_collectives_of_waiting_requests_to_run_and_the_rest_of_those_that_run() -> None:
    """Dispatch and combine of 4 new tokens move 32 B each way in each of two layers: 64 B at 100 B/s, 0.64 s.

    A quarter of the way through a batch, three quarters of them are left: 0.48 s.
    """
    made = job(TOPOLOGY, PLACEMENT)
    ahead = CollectivesAhead(made, TrafficAhead(made).own_ports)

    def left_s(now_ns: int, *waiting: Assigned) -> list[float]:
        return [ahead.left_ns("p0", replica, now_ns, waiting) / 1e9 for replica in (0, 1)]

    assert left_s(0, ITEM) == pytest.approx([0.64, 0.64])
    ahead.begun("p0", "b", [ITEM], now_ns=100, ends_ns=500.0)
    assert left_s(200) == pytest.approx([0.48, 0.48])
    assert left_s(200, ITEM) == pytest.approx([1.12, 1.12])
    assert (ahead.busy_ns("p0", 200), ahead.busy_ns("p0", 600), ahead.busy_ns("p1", 200)) == (300.0, 0.0, 0.0)
    ahead.ended("p0", "b")
    assert left_s(200) == [0.0, 0.0]


def with_reuse(reuse: ReuseRule) -> Job:
    made = job(TOPOLOGY, PLACEMENT)
    return msgspec.structs.replace(made, serving=msgspec.structs.replace(made.serving, reuse=reuse))


@pytest.mark.parametrize(
    ("reuse", "seconds"),
    [
        (ReuseRule.FETCH, 1.28 + 2.56),  # half of the KV of the one before
        (ReuseRule.RECOMPUTE, 2.56 + 2.56),  # all of it
    ],
)
def test_a_request_that_waits_for_its_prefix_sends_from_the_replica_that_has_it(
    reuse: ReuseRule, seconds: float
) -> None:
    """8 tokens x 2 layers x 16 B at 100 B/s are 2.56 s of S3, behind that of a request before.

    If prefixes are computed again, that one waits for the same replica; else it may run on either of two.
    """
    traffic = TrafficAhead(with_reuse(reuse))
    traffic.queued("p0", ITEM)

    def delivery_s(collectives_ns: float) -> float:
        ns = traffic.delivery_ns("p0", ITEM, prefill_ns=0.0, layers_ns=0.0, collectives_ns=collectives_ns)
        return ns / 1e9

    assert delivery_s(0.0) == pytest.approx(seconds)
    assert delivery_s(1e9) == pytest.approx(seconds + 1.0)
