"""The control plane over TCP: who has a key is heard and answered, and nobody else is."""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
import zmq.auth.certs
from free_port import free_port

from controller import curve, gate
from controller.curve import HELLO, ClientKeys, ServerKeys
from controller.curve_files import coordinator_keys, make_keys, ranks_keys
from controller.tcp_hub import TcpHub
from workers.wire import Outbox

WAIT_MS = 5000
ENDPOINT = "tcp://127.0.0.1:{port}"


class Served:
    """A hub on a port of its own, with the keys in `directory`. `refused` has whom it did not let in."""

    def __init__(self, directory: Path, most_bytes: int = 1000) -> None:
        make_keys(directory)
        self.keys, _ = coordinator_keys(directory)
        self.ranks = ranks_keys(directory / "ranks")
        self.refused: list[str] = []
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.gate = gate.let_in(self.context, self.keys, self.refused.append)
        self.endpoint = ENDPOINT.format(port=free_port())
        self.hub = TcpHub(self.context, self.endpoint, self.keys, self.refused.append, most_bytes=most_bytes)
        self.others: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.peers: list[zmq.Socket[bytes]] = []
        self._shaken: list[curve.Handshakes] = []

    def peer(self, keys: ClientKeys | None, name: str = "") -> "zmq.Socket[bytes]":
        if keys is not None:
            socket = curve.connect(self.others, self.endpoint, keys, name)
        else:
            socket = self.others.socket(zmq.DEALER)
            socket.connect(self.endpoint)
        socket.setsockopt(zmq.LINGER, 0)
        self.peers.append(socket)  # or it would be closed once the test has forgotten it
        return socket

    def shaken(self, peer: "zmq.Socket[bytes]") -> curve.Handshakes:
        made = curve.Handshakes(peer)
        self._shaken.append(made)
        return made

    def next(self) -> tuple[str, bytes] | None:
        """The next message; None if there is none for a while."""
        deadline = time.monotonic() + WAIT_MS / 1000
        while time.monotonic() < deadline and not self.refused:
            self.hub.socket.poll(20)
            try:
                return self.hub.receive_from()
            except zmq.Again:
                continue
        return None

    def close(self) -> None:
        for shaken in self._shaken:
            shaken.close()
        for peer in self.peers:
            peer.close(linger=0)
        self.others.term()
        self.gate.stop()
        self.hub.close()
        self.context.term()  # waits for the thread that watches for refusals


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "keys")
    yield made
    made.close()


def test_a_peer_with_a_key_is_heard_and_answered_by_its_name(served: Served) -> None:
    peer = served.peer(served.ranks, "7")
    peer.send(b"I am here")
    assert served.next() == ("7", b"I am here")
    served.hub.send("7", b"do it")
    assert peer.poll(WAIT_MS)
    assert peer.recv() == b"do it"


def test_a_peer_without_a_name_is_heard(served: Served) -> None:
    served.peer(served.ranks).send(b"from a rank")
    assert served.next() == ("", b"from a rank")


def test_what_is_sent_before_the_peer_is_there_waits_for_it(served: Served) -> None:
    served.hub.send("7", b"first")
    served.hub.send("7", b"second")
    peer = served.peer(served.ranks, "7")
    peer.send(HELLO)
    peer.send(b"go on")
    assert served.next() == ("7", b"go on")
    assert [peer.recv() for _ in range(2) if peer.poll(WAIT_MS)] == [b"first", b"second"]
    assert served.hub.names() == ("7",)


def stranger(server: str) -> ClientKeys:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    return ClientKeys(server=server, public=public, secret=secret)


def test_an_unknown_key_is_refused_and_told(served: Served) -> None:
    keys = stranger(served.keys.public)
    served.peer(keys, "7").send(b"let me in")
    assert served.next() is None
    assert served.refused[0] == f"refused a peer with the unknown key {keys.public}"


def test_a_peer_that_takes_another_server_for_this_one_is_not_heard(served: Served) -> None:
    """It has an allowed key, and not the server's: it cannot be sure whom it talks to."""
    other, _ = (key.decode() for key in zmq.curve_keypair())
    keys = ClientKeys(server=other, public=served.ranks.public, secret=served.ranks.secret)
    served.peer(keys, "7").send(b"let me in")
    assert served.next() is None
    assert served.refused[0].startswith(f"refused a peer at {served.endpoint}: ")


def test_a_peer_without_keys_is_refused_and_told(served: Served) -> None:
    served.peer(None).send(b"let me in")
    assert served.next() is None
    assert served.refused[0].startswith(f"refused a peer at {served.endpoint}: ")


def test_a_message_that_is_too_long_does_not_arrive(served: Served) -> None:
    """A message of 1000 bytes is allowed; one of 1001 closes the connection of its sender."""
    peer = served.peer(served.ranks, "7")
    peer.send(b"x" * 900)
    assert served.next() == ("7", b"x" * 900)
    peer.send(b"x" * 1001)
    peer.send(b"after")
    heard = served.next()
    assert heard is None or heard[1] == b"after"


def test_a_message_in_several_frames_is_one_message(tmp_path: Path) -> None:
    """A rank sends what is larger than a frame may be in pieces."""
    served = Served(tmp_path / "keys", most_bytes=curve.MOST_BYTES)
    outbox = Outbox(served.endpoint, served.ranks, "rank 7")
    try:
        for message in (b"", bytes(range(256)) * 2**14, b"x"):  # 4 MiB
            outbox.send(message)
        heard = served.next()
        assert heard == ("rank 7", bytes(range(256)) * 2**14)
        assert served.next() == ("rank 7", b"x")
        assert served.hub.sender == "rank 7"
    finally:
        outbox.close()
        served.close()


def test_a_message_whose_frames_are_too_long_together_is_dropped_and_told(served: Served) -> None:
    peer = served.peer(served.ranks, "7")
    peer.send_multipart([b"x" * 600, b"x" * 401])
    peer.send(b"after")
    until(lambda: served.hub.socket.poll(20))
    assert served.hub.receive_from() == ("7", b"after")
    assert served.refused == [f"dropped a message of more than 1000 bytes at {served.endpoint}"]


def test_a_stranger_makes_nobody_hold_more_than_a_frame(tmp_path: Path) -> None:
    """Before its handshake, it says that a command of 2 MiB comes. The connection is closed at once."""
    served = Served(tmp_path / "keys", most_bytes=curve.MOST_BYTES)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
    try:
        with socket.create_connection(("127.0.0.1", int(served.endpoint.rpartition(":")[2]))) as stranger:
            stranger.settimeout(WAIT_MS / 1000)
            stranger.sendall(greeting)
            read = b""
            while len(read) < 64:
                read += stranger.recv(64)
            stranger.sendall(b"\x06" + (2 * 2**20).to_bytes(8, "big"))
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(1) == b""
    finally:
        served.close()


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    own, ranks = make_keys(tmp_path / "keys")
    for secret in (own / "coordinator.key_secret", ranks / "ranks.key_secret"):
        assert secret.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        make_keys(tmp_path / "keys")
    (ranks / "ranks.key_secret").chmod(0o644)
    with pytest.raises(ValueError, match=r"others may read it \(mode 0644\): chmod 600"):
        ranks_keys(ranks)


KEY_FILES = (
    "coordinator/coordinator.key",
    "coordinator/coordinator.key_secret",
    "ranks/coordinator.key",
    "ranks/ranks.key",
    "ranks/ranks.key_secret",
    "coordinator/ranks.key",
)
"""In the order in which they are written."""


@pytest.mark.parametrize("number", range(len(KEY_FILES)))
def test_a_full_disk_is_told_with_the_key_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The disk takes `number` files, and of the next one only its name. Such an error names no file."""
    written: list[Path] = []

    def write(path: str | Path) -> None:
        written.append(Path(path))
        if len(written) > number:
            Path(path).touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def certificate(path: str, *rest: object, **named: object) -> None:
        write(path)
        plain_certificate(path, *rest, **named)

    def copy(path: Path, data: bytes) -> int:
        write(path)
        return plain_copy(path, data)

    plain_certificate, plain_copy = zmq.auth.certs._write_key_file, Path.write_bytes
    monkeypatch.setattr(zmq.auth.certs, "_write_key_file", certificate)
    monkeypatch.setattr(Path, "write_bytes", copy)
    keys = tmp_path / "new" / "keys"
    with pytest.raises(OSError, match="No space left") as caught:
        make_keys(keys)
    assert caught.value.filename == str(keys / KEY_FILES[number])
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    make_keys(keys)
    assert sorted(str(path.relative_to(keys)) for path in keys.rglob("*.key*")) == sorted(KEY_FILES)
    assert {path.stat().st_mode & 0o777 for path in keys.rglob("*.key*")} == {0o600}
    assert sorted(path.name for path in keys.iterdir()) == ["coordinator", "ranks"]


def test_a_directory_that_was_there_stays_when_keys_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zmq.auth.certs, "_write_key_file", full)
    with pytest.raises(OSError, match="No space left"):
        make_keys(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_directory_for_keys(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_keys(tmp_path / "file")


def test_ranks_have_no_secret_of_the_coordinator(tmp_path: Path) -> None:
    own, ranks = make_keys(tmp_path / "keys")
    assert sorted(path.name for path in ranks.iterdir()) == [
        "coordinator.key",
        "ranks.key",
        "ranks.key_secret",
    ]
    server, client = coordinator_keys(tmp_path / "keys")
    assert isinstance(server, ServerKeys)
    assert server.secret not in "".join(path.read_text() for path in ranks.iterdir())
    assert set(server.allowed) == {server.public, ranks_keys(ranks).public}
    assert ranks_keys(ranks).server == client.server == server.public
    assert (own / "ranks.key").read_bytes() == (ranks / "ranks.key").read_bytes()
    with pytest.raises(ValueError, match="no key file"):
        ranks_keys(tmp_path)


def test_a_peer_whose_key_is_unknown_is_told_so(served: Served, tmp_path: Path) -> None:
    make_keys(tmp_path / "others")
    stranger = ranks_keys(tmp_path / "others" / "ranks")
    peer = served.peer(ClientKeys(server=served.keys.public, public=stranger.public, secret=stranger.secret))
    shaken = served.shaken(peer)
    until(shaken.refused)
    assert served.refused[0] == f"refused a peer with the unknown key {stranger.public}"


def test_a_refusal_is_told_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    refusals = gate.Refusals(told.append)
    now_s = [0.0]
    monkeypatch.setattr(gate.time, "monotonic", lambda: now_s[0])
    for now_s[0], text in ((0.0, "a"), (30.0, "a"), (30.0, "b"), (61.0, "a"), (80.0, "b")):
        refusals(text)
    assert told == ["a", "b", "a"]


def test_no_more_refusals_are_told_than_somebody_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger can make as many keys as it likes. What was told is forgotten after a minute."""
    told: list[str] = []
    refusals = gate.Refusals(told.append)
    now_s = [0.0]
    monkeypatch.setattr(gate.time, "monotonic", lambda: now_s[0])
    for number in range(1000):
        refusals(f"key {number}")
    assert told[:20] == [f"key {number}" for number in range(20)]
    assert told[20:] == ["there are more than 20 refusals in 60 s; the others are not told"]
    now_s[0] = 61.0
    refusals("key 999")
    assert told[-1] == "key 999"


def test_a_peer_with_the_keys_of_another_cluster_learns_it_and_is_told_of_once(
    served: Served, tmp_path: Path
) -> None:
    make_keys(tmp_path / "others")
    shaken = served.shaken(served.peer(ranks_keys(tmp_path / "others" / "ranks")))
    until(shaken.refused)
    until(lambda: len(served.refused) == 1)  # though it has tried again


def test_a_peer_whose_handshake_succeeds_knows_of_none_that_failed(served: Served) -> None:
    peer = served.peer(served.ranks, "7")
    shaken = served.shaken(peer)
    peer.send(b"I am here")
    assert served.next() == ("7", b"I am here")
    assert not shaken.refused()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 2 * WAIT_MS / 1000
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
