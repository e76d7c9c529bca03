"""A desk for agents on loopback with keys, and agents that say what a test wants."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import zmq
from free_port import free_port

from controller import curve, gate
from controller.curve_files import coordinator_keys, make_keys, ranks_keys
from testbed.cluster.agents import AgentDesk, Expected
from workers.agent_protocol import (
    FromAgent,
    Here,
    Load,
    Machine,
    Ping,
    Pong,
    ToAgent,
    decode_to_agent,
    encode,
)

AHEAD_NS = 5_000_000_000
WAIT_S = 10.0
HERE = Here(
    host="node01",
    local_rank=0,
    job="job",
    source="code",
    machine=Machine(mfs="", torch="", python="", kernel="", cores=1, gpus=0, mtus={"eth1": 1500}),
    load=Load(idle=0.5, sent=10, again=1, received={"eth1": 20}),
)
EXPECTED = Expected(hosts=frozenset({"node01"}), job="job", source="code")

_TRIES = 5


class Office:
    """A desk on a port of its own. `said` is what it logs."""

    def __init__(self, directory: Path, expected: Expected) -> None:
        self.keys_at = directory / "keys"
        make_keys(self.keys_at)
        keys, _ = coordinator_keys(self.keys_at)
        self.said: list[str] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._gate = gate.let_in(self._context, keys, self.said.append)
        for left in reversed(range(_TRIES)):
            self.endpoint = f"tcp://127.0.0.1:{free_port()}"
            self.desk = AgentDesk(expected, self.said.append)
            try:
                self.desk.start(self._context, self.endpoint, keys)
                break
            except zmq.ZMQError as error:  # another process may have taken the port since
                if error.errno != zmq.EADDRINUSE or not left:
                    raise
        self._agents: list[FakeAgent] = []

    def agent(self, here: Here = HERE, peer: str = "") -> "FakeAgent":
        made = FakeAgent(self.endpoint, self.keys_at / "ranks", here, peer)
        self._agents.append(made)
        return made

    def close(self) -> None:
        self.desk.close(failed=False)
        for agent in self._agents:
            agent.close()
        self._gate.stop()
        self._context.term()


class FakeAgent:
    """Says that it is there, answers pings with a clock that is 5 s ahead, and keeps what it is told."""

    def __init__(self, endpoint: str, keys: Path, here: Here, peer: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        name = peer or f"{here.host}/{here.local_rank}"
        self._socket = curve.connect(self._context, endpoint, ranks_keys(keys), name)
        self.told: list[ToAgent] = []
        self._stop = threading.Event()
        self._to_say: list[FromAgent] = [here]
        self._raw: list[tuple[bytes, ...]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def say(self, message: FromAgent) -> None:
        self._to_say.append(message)

    def send(self, *frames: bytes) -> None:
        """Send frames as they are."""
        self._raw.append(frames)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close(linger=0)
        self._context.term()

    def _run(self) -> None:
        while not self._stop.is_set():
            while self._to_say:
                self._socket.send(encode(self._to_say.pop(0)))
            while self._raw:
                self._socket.send_multipart(self._raw.pop(0))
            if not self._socket.poll(10):
                continue
            message = decode_to_agent(self._socket.recv())
            if isinstance(message, Ping):
                now_ns = time.monotonic_ns() + AHEAD_NS
                self._socket.send(encode(Pong(number=message.number, wall_ns=now_ns)))
            else:
                self.told.append(message)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
