"""Which connections belong to which lane or peer, and the wires of the control plane."""

import queue
from pathlib import Path

import pytest
import torch.distributed as dist
from worker_groups import CPU, WAIT_S, side_by_side

from controller.flow import Level
from controller.protocol import Permit, TcpConnection, decode_down, encode
from workers.process_groups import ProcessGroups, by_peer
from workers.wire import Inbox, Outbox


def to(address: str, port: int) -> TcpConnection:
    return TcpConnection(src_ip="10.0.0.1", dst_ip=address, src_port=port, dst_port=5000)


def test_connections_are_told_apart_by_the_address_of_the_peer() -> None:
    found = by_peer([to("10.0.0.3", 1), to("10.0.0.2", 2)], {4: "10.0.0.2", 5: "10.0.0.3"})
    assert found == {4: (to("10.0.0.2", 2),), 5: (to("10.0.0.3", 1),)}


def test_peers_on_one_server_share_its_connections_out() -> None:
    """They share one path, so it does not matter which connection belongs to which of them."""
    there = [to("10.0.0.2", port) for port in (1, 2, 3, 4)]
    found = by_peer(there, {4: "10.0.0.2", 5: "10.0.0.2"})
    assert found == {4: (there[0], there[2]), 5: (there[1], there[3])}


def test_a_peer_on_our_own_server_has_no_connection_that_a_switch_could_see() -> None:
    assert by_peer([to("10.0.0.2", 1)], {4: "10.0.0.2", 5: "10.0.0.1"}) == {4: (to("10.0.0.2", 1),), 5: ()}


def test_connections_to_nobody_we_know_are_left_out() -> None:
    assert by_peer([to("10.0.0.9", 1)], {4: "10.0.0.2"}) == {4: ()}


def test_a_lane_inside_a_server_has_no_connections() -> None:
    store = dist.HashStore()
    ends = [
        ProcessGroups(store=store, store_port=0, interface="lo", device=CPU, nccl=False) for _ in range(2)
    ]
    opened = side_by_side([lambda r=r: ends[r].lane("lane", r) for r in range(2)])  # type: ignore[misc]
    assert [connections for _, connections in opened] == [(), ()]


@pytest.fixture
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory: Path = tmp_path_factory.mktemp("wire")
    return f"ipc://{directory}/in"


PERMIT = Permit(flow="f", lane="lane", level=Level.P1, lane_wait_wall_ns=0)


def test_messages_cross_the_wire_in_order(endpoint: str) -> None:
    heard: queue.Queue[object] = queue.Queue()
    outbox = Outbox(endpoint)  # may be there before the inbox
    Inbox(endpoint, decode_down, heard.put, heard.put).start()
    sent = [Permit(flow=f"f{i}", lane="", level=Level.P1, lane_wait_wall_ns=i) for i in range(50)]
    for message in sent:
        outbox.send(encode(message))
    assert [heard.get(timeout=WAIT_S) for _ in sent] == sent
    outbox.close()


def test_what_goes_wrong_with_a_message_is_reported(endpoint: str) -> None:
    errors: queue.Queue[BaseException] = queue.Queue()

    def handle(message: object) -> None:
        raise KeyError("f")

    Inbox(endpoint, decode_down, handle, errors.put).start()
    outbox = Outbox(endpoint)
    outbox.send(encode(PERMIT))
    assert isinstance(errors.get(timeout=WAIT_S), KeyError)
    outbox.close()
