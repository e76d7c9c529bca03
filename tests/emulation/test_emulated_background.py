"""Background transfers on the emulated fabric: they arrive on their level, and all requests are served."""

import itertools

import emulated_world as world
import msgspec
import pytest

from controller.flow import Level, Stage
from testbed.job import Background
from testbed.record import RequestStatus, RunRecord
from testbed.topology import star

PAIRS = ((0, 4), (2, 4))


@pytest.fixture(scope="module")
def record() -> RunRecord:
    """Two prefill ranks offload 40 kB every 100 ms to the decode rank, under `stage`."""
    job = world.serving_job(star(servers=5, nic_bps=30_000_000), policy="stage")
    background = Background(pairs=PAIRS, size_bytes=40_000, period_ns=100_000_000)
    return world.run(msgspec.structs.replace(job, background=background))


def test_every_request_is_served(record: RunRecord) -> None:
    assert {row.status for row in record.requests} == {RequestStatus.COMPLETED}


def test_every_transfer_arrives_with_its_payload_on_the_level_below_s3(record: RunRecord) -> None:
    flows = [flow for flow in record.flows if flow.stage is Stage.BACKGROUND]
    assert {(flow.src, flow.dst) for flow in flows} == set(PAIRS)
    assert {(flow.level_first, flow.level_last, flow.size_bytes) for flow in flows} == {
        (Level.SCAVENGER, Level.SCAVENGER, 40_000)
    }
    assert all(flow.finish_ns > flow.permit_ns for flow in flows)
    assert {flow.verified for flow in flows} <= {True, None}


def test_a_pair_has_one_transfer_at_a_time(record: RunRecord) -> None:
    for pair in PAIRS:
        mine = sorted(
            (flow.submit_ns, flow.finish_ns)
            for flow in record.flows
            if flow.stage is Stage.BACKGROUND and (flow.src, flow.dst) == pair
        )
        assert len(mine) >= 2
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(mine))
