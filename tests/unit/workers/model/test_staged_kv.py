"""Real KV on lanes, staged as for a GPU: first tokens are right however late copies are."""

import queue

import pytest
from late_streams import CHUNK, InstantGroup, late
from real_world import DENSE, Cluster, real_job, request
from worker_groups import WAIT_S

from controller.flow import Transfer
from workers.lanes import Header, ReceiveLane, SendLane
from workers.model.rank_model import RankModel
from workers.payload import Payloads

FIRST = request(0, 48, ())
REQUESTS = (FIRST, request(1, 48, FIRST.blocks[:4]))


def carried(transfer: Transfer, sender: RankModel, receiver: RankModel) -> None:
    """Send a transfer on a lane of its own."""
    group, events = InstantGroup(), queue.Queue[object]()
    ReceiveLane(
        "lane",
        group,
        late(Payloads(1)),
        CHUNK,
        0.0,
        progressed=lambda *_: None,
        arrived=lambda header, verified: events.put((header.flow, verified)),
        failed=events.put,
        keep=receiver.keep,
    )
    lane = SendLane("lane", group, late(Payloads(1)), CHUNK, events.put)
    header = Header(flow=transfer.id, size_bytes=transfer.size_bytes, wire_bytes=transfer.size_bytes)
    lane.send(header, lambda: sender.load(transfer))
    assert events.get(timeout=WAIT_S) == (transfer.id, True)


def test_first_tokens_are_those_of_the_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """S1 brings four blocks to request 1. The S3 of a layer has 6,144 B, in seven chunks."""
    monkeypatch.setattr("workers.lanes.WINDOW_BYTES", 0)
    cluster = Cluster(real_job(DENSE, REQUESTS, units=2, per_unit=2), carry=carried)
    checks = cluster.serve()
    assert [(one.local_tokens, one.remote_tokens) for plan in cluster.plans for one in plan.requests] == [
        (0, 0),
        (0, 32),
    ]
    for check in checks.values():
        assert check.token == check.expected_token
        assert check.logit_error < 0.005
        assert check.kv_error < 0.01
