"""The agent of a rank on a real server: `torchrun ... -m workers.cluster` starts it.

It tells the coordinator that it is there, starts the rank of each job in a process of its own, and ends when
it is dismissed. Which rank that is follows from the name of the server and LOCAL_RANK. torchrun's RANK says
nothing: it depends on the order in which servers have come.

Environment: LOCAL_RANK (torchrun sets it), MFS_COORDINATOR (`tcp://ADDRESS:PORT`), MFS_KEYS (the directory
with the keys of ranks), MFS_JOB (the digest that `mfs cluster command` prints), and MFS_WAIT_S (how long to
wait for the coordinator, by default 600).
"""

import importlib.metadata
import os
import platform
import queue
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import msgspec
import psutil
import torch.distributed
import zmq
from torch.distributed.elastic.multiprocessing.errors import record

from controller.curve import HELLO, ClientKeys, Handshakes, connect
from controller.curve_files import ranks_keys
from controller.sources import CODE_ROOT, source_digest
from workers.agent_protocol import (
    BEAT_S,
    AgentLeft,
    Beat,
    Dismissed,
    FromAgent,
    Here,
    Load,
    Machine,
    PairListening,
    PairResult,
    Ping,
    Pong,
    RankEnded,
    ReceivePair,
    Refused,
    RunRank,
    SendPair,
    StopRank,
    decode_to_agent,
    encode,
)
from workers.forked import become_rank, how_it_ended
from workers.neighbours import Neighbours
from workers.pair_probe import receive, send
from workers.process import die_with_parent
from workers.protocol import RankConfig
from workers.traffic_classes import has_ucx, settings

PATIENCE_S = 15.0
"""Wall seconds without a sign of life of the coordinator after which an agent ends, and its rank with it."""

_WAIT_S = 600.0
_POLL_MS = 100


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is started with."""

    coordinator: str
    keys: ClientKeys
    job: str
    local_rank: int
    wait_s: float

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the environment. Raises `ValueError` in words for what is missing or wrong."""
        needed = ("LOCAL_RANK", "MFS_COORDINATOR", "MFS_KEYS", "MFS_JOB")
        missing = [name for name in needed if not environment.get(name)]
        if missing:
            raise ValueError(
                f"not set: {', '.join(missing)}; `mfs cluster command` prints the command that sets them"
            )
        return cls(
            coordinator=environment["MFS_COORDINATOR"],
            keys=ranks_keys(Path(environment["MFS_KEYS"])),
            job=environment["MFS_JOB"],
            local_rank=int(environment["LOCAL_RANK"]),
            wait_s=float(environment.get("MFS_WAIT_S") or _WAIT_S),
        )


class Agent:
    """Keeps in touch with the coordinator. `run` returns the exit code of the process."""

    def __init__(self, settings: Settings, host: str) -> None:
        self._settings = settings
        self._host = host
        self._machine = machine()
        self._source = source_digest(CODE_ROOT)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # A name of its own, so that a second agent of this place cannot get what is for this one.
        name = f"{host}/{settings.local_rank}/{secrets.token_hex(8)}"
        self._socket = connect(context, settings.coordinator, settings.keys, name)
        self._handshakes = Handshakes(self._socket)
        self._socket.send(HELLO)
        self._child: int | None = None
        self._rank = -1
        self._neighbours: Neighbours | None = None
        self._found: queue.SimpleQueue[FromAgent] = queue.SimpleQueue()
        self._heard_s = time.monotonic()
        self._patience_s = settings.wait_s

    def run(self) -> int:
        said_s = 0.0
        psutil.cpu_times_percent(None)
        try:
            while True:
                if time.monotonic() - said_s >= BEAT_S:
                    said_s = time.monotonic()
                    self._say(self._here())
                    if self._neighbours is not None:
                        self._neighbours.greet()
                while self._socket.poll(_POLL_MS):
                    code = self._hear(self._socket.recv())
                    if code is not None:
                        return code
                if self._handshakes.refused():
                    return _fail(
                        f"the coordinator at {self._settings.coordinator} does not take the key of this"
                        " server (MFS_KEYS): copy the directory `ranks` of its keys here again"
                    )
                self._look_after_child()
                while not self._found.empty():
                    self._say(self._found.get())
                if time.monotonic() - self._heard_s > self._patience_s:
                    where = self._settings.coordinator
                    return _fail(f"nothing has been heard of {where} for {self._patience_s:.0f} s")
        except _Told as told:
            self._say(AgentLeft(why=str(told)))
            return 1
        finally:
            self._kill_child()
            self._handshakes.close()
            self._socket.close(linger=1000)

    def _here(self) -> Here:
        return Here(
            host=self._host,
            local_rank=self._settings.local_rank,
            job=self._settings.job,
            source=self._source,
            machine=self._machine,
            load=load(),
            heard=() if self._neighbours is None else self._neighbours.heard(),
        )

    def _say(self, message: FromAgent) -> None:
        self._socket.send(encode(message))

    def _hear(self, frame: bytes) -> int | None:
        """Obey a message. Returns the exit code if it ends this agent."""
        now_ns = time.monotonic_ns()
        self._heard_s = time.monotonic()
        self._patience_s = PATIENCE_S
        order = decode_to_agent(frame)
        match order:
            case Ping(number=number):
                self._say(Pong(number=number, wall_ns=now_ns))
            case Beat():
                pass
            case ReceivePair() | SendPair():
                self._in_thread(order)
            case RunRank(config=config, neighbours=neighbours):
                self._hear_nobody()  # or the new rank would inherit the socket
                self._start(config)
                self._hear_others(config, neighbours)
            case StopRank():
                self._kill_child()
            case Dismissed(failed=failed):
                return int(failed)
            case Refused(reason=reason):
                return _fail(f"the coordinator at {self._settings.coordinator} refuses this agent: {reason}")
        return None

    def _in_thread(self, order: ReceivePair | SendPair) -> None:
        """Carry out an order that takes a while. What it finds is said by the thread that has the socket."""
        threading.Thread(target=self._probe, args=(order,), daemon=True).start()

    def _probe(self, order: ReceivePair | SendPair) -> None:
        number = order.number
        try:
            if isinstance(order, SendPair):
                send(order.own, order.address, order.port, order.dscps, order.seconds)
                return

            def listening(port: int) -> None:
                self._found.put(PairListening(number=number, port=port))

            seen = receive(order.address, order.seconds, listening)
            self._found.put(PairResult(number=number, seen=seen))
        except OSError as error:
            self._found.put(PairResult(number=number, seen=None, trouble=f"{self._host}: {error}"))

    def _start(self, config: RankConfig) -> None:
        self._kill_child()
        assert config.remote is not None
        remote = msgspec.structs.replace(config.remote, keys=self._settings.keys)
        config = msgspec.structs.replace(config, remote=remote)
        self._rank = config.rank
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            die_with_parent(parent)
            become_rank(config)
        self._child = pid

    def _hear_nobody(self) -> None:
        if self._neighbours is not None:
            self._neighbours.close()
            self._neighbours = None

    def _hear_others(self, config: RankConfig, neighbours: tuple[str, ...]) -> None:
        """Exchange datagrams with `neighbours` from now on."""
        if not neighbours:
            return
        assert config.remote is not None
        own, port = config.addresses[config.servers[config.rank]], config.store_port
        try:
            self._neighbours = Neighbours(own, port, neighbours, config.remote.control_dscp)
        except OSError as error:
            self._kill_child()
            how = f"cannot use UDP port {port} of {own} (store_port of the inventory): {error.strerror}"
            self._say(RankEnded(rank=config.rank, how=how))

    def _look_after_child(self) -> None:
        if self._child is None:
            return
        pid, status = os.waitpid(self._child, os.WNOHANG)
        if pid:
            self._child = None
            self._say(
                RankEnded(
                    rank=self._rank,
                    how="" if status == 0 else how_it_ended(status),
                    killed=os.WIFSIGNALED(status),
                )
            )

    def _kill_child(self) -> None:
        if self._child is not None:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._child = None


class _Told(BaseException):
    """A signal has told this process to end."""


def _on_signal(number: int, _: FrameType | None) -> None:
    raise _Told(f"by {signal.Signals(number).name}")


def _fail(reason: str) -> int:
    print(f"mfs agent: {reason}", file=sys.stderr, flush=True)
    return 1


def machine() -> Machine:
    """What this machine has."""
    return Machine(
        mfs=importlib.metadata.version("mfs-testbed"),
        torch=str(torch.__version__),
        python=platform.python_version(),
        kernel=platform.release(),
        cores=os.cpu_count() or 0,
        # Not by CUDA, which must not be set up in a process that forks.
        gpus=len([path for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()]),
        mtus={name: stats.mtu for name, stats in psutil.net_if_stats().items()},
        classes=settings(os.environ),
        ucx=has_ucx(),
    )


def load() -> Load:
    """The load of this machine since the last call."""
    with open("/proc/net/snmp") as file:
        names, values = (line.split() for line in file if line.startswith("Tcp:"))
    sent, again = (int(values[names.index(name)]) for name in ("OutSegs", "RetransSegs"))
    received = {nic: count.bytes_recv for nic, count in psutil.net_io_counters(pernic=True).items()}
    idle = psutil.cpu_times_percent(None).idle / 100
    return Load(idle=idle, sent=sent, again=again, received=received)


@record  # type: ignore[untyped-decorator]  # torch has no types here
def main() -> None:
    try:
        settings = Settings.of(os.environ)
    except (OSError, ValueError) as error:
        sys.exit(_fail(str(error)))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
    code = Agent(settings, socket.gethostname()).run()
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
