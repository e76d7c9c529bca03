"""What one server gets from another: over loopback, every mark arrives as it was sent."""

import queue
import threading

import pytest

from workers.agent_protocol import PairSeen
from workers.pair_probe import receive, send

LOOPBACK = "127.0.0.1"


def test_marks_and_bytes_arrive() -> None:
    ports: queue.SimpleQueue[int] = queue.SimpleQueue()
    found: queue.SimpleQueue[PairSeen] = queue.SimpleQueue()
    threading.Thread(target=lambda: found.put(receive(LOOPBACK, 0.2, ports.put)), daemon=True).start()
    send(LOOPBACK, LOOPBACK, ports.get(timeout=10), (56, 8, 0), 0.2)
    seen = found.get(timeout=10)
    assert seen.dscps == {56: 56, 8: 8, 0: 0}
    assert seen.bytes >= 1 << 20
    assert seen.bytes % (1 << 20) == 0
    assert seen.seconds > 0.1


def test_nobody_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.pair_probe._PATIENCE_S", 0.1)
    with pytest.raises(TimeoutError):
        receive(LOOPBACK, 0.0, lambda port: None)


def test_nobody_listens() -> None:
    ports: queue.SimpleQueue[int] = queue.SimpleQueue()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.pair_probe._PATIENCE_S", 0.1)
        with pytest.raises(TimeoutError):
            receive(LOOPBACK, 0.0, ports.put)
    with pytest.raises(ConnectionRefusedError):
        send(LOOPBACK, LOOPBACK, ports.get(timeout=1), (), 0.1)
