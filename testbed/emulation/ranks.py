"""The coordinator's side of the ranks: the lanes they need, their processes, their messages."""

import importlib.metadata
import itertools
import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import zmq

from controller.lanes import lane_name
from testbed.emulation.children import python_module
from testbed.emulation.endpoints import Endpoints
from testbed.emulation.memory import MemoryKills
from testbed.emulation.network import Network
from testbed.emulation.processes import stopped
from testbed.emulation.real_model import real_model
from testbed.emulation.silence import PATIENCE_S, Silences
from testbed.fabric import RunFailed
from testbed.job import Job
from testbed.lane_counts import LaneCounts
from workers.options import Device
from workers.protocol import (
    Beat,
    Finish,
    FromRank,
    LaneSpec,
    Leave,
    Probed,
    ProbeSpec,
    RankConfig,
    RankTrouble,
    Ready,
    Records,
    RunProbe,
    Start,
    ToRank,
    decode_from_rank,
    encode,
)

_STORE_PORT = 29500
_IMPORT_S = 120.0
_READY_S = 120.0
_PROBE_S = 30.0
_FINISH_S = 60.0
_CHECK_S = 180.0
_PROBE_LENGTH_S = 0.6
_OBITUARY_S = 0.5


def lanes_of(job: Job) -> tuple[LaneSpec, ...]:
    """Return every lane of a run (`LaneCounts`), ordered so that many pairs of ranks connect at once."""
    counts = LaneCounts(job)
    ranks = len(job.placement.ranks)
    lanes = [
        LaneSpec(id=lane_name(stage, src, dst, i), stage=stage, src=src, dst=dst)
        for stage, src, dst in counts.pairs()
        for i in range(counts.of(stage, src, dst))
    ]
    return tuple(sorted(lanes, key=lambda lane: (_round(lane.src, lane.dst, ranks), lane.id)))


def _round(a: int, b: int, ranks: int) -> int:
    """The round of a round-robin tournament in which `a` and `b` meet. Pairs of a round connect at once."""
    teams = ranks - 1 + ranks % 2
    if teams in (a, b):
        return (2 * min(a, b)) % teams if teams else 0
    return (a + b) % teams if teams else 0


def _name(rank: int) -> str:
    return f"rank {rank}"


def probes_of(job: Job) -> tuple[ProbeSpec, ...]:
    """Return probes in a ring over the servers that have ranks: each sends to the next, all at once."""
    first: dict[str, int] = {}
    for rank in job.placement.ranks:
        first.setdefault(rank.server, rank.rank)
    ring = [first[server] for server in job.topology.servers if server in first]
    if len(ring) < 2:
        return ()
    return tuple(
        ProbeSpec(id=f"probe.{a}-{b}", src=a, dst=b) for a, b in zip(ring, ring[1:] + ring[:1], strict=True)
    )


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One probed path: the payload rate that arrived, and its part of the line rate; bits/s on the wire."""

    src: str
    dst: str
    delivered_bps: float
    nominal_bps: float


class RankProcesses:
    """Starts the ranks and exchanges messages with them.

    Ranks are forked from a zygote, which starts at once because it takes seconds to import torch.
    """

    def __init__(self, job: Job, directory: Path) -> None:
        self._job = job
        self._directory = directory
        self._endpoints = Endpoints(directory)
        self._lanes = lanes_of(job)
        self._model = real_model(job, directory)
        self._probes = probes_of(job)
        self._memory = MemoryKills()
        self._steps = dict.fromkeys((r.rank for r in job.placement.ranks), 0)
        self._silences: Silences | None = None
        self._checks: tuple[Callable[[], None], ...] = ()
        self.device = ""
        self.backend = ""
        self.torch_version = importlib.metadata.version("torch")
        with (directory / "ranks.log").open("wb") as log:
            self._zygote = subprocess.Popen(
                python_module("workers.zygote"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"},
            )
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.inbox = context.socket(zmq.PULL)
        self.inbox.set_hwm(0)
        self.inbox.bind(self._endpoints.to_coordinator)
        self._out = {}
        for rank in job.placement.ranks:
            socket = context.socket(zmq.PUSH)
            socket.set_hwm(0)
            socket.connect(self._endpoints.from_coordinator(rank.rank))
            self._out[rank.rank] = socket

    @property
    def lanes(self) -> int:
        return len(self._lanes)

    @property
    def group_ends(self) -> int:
        return sum(len(members) for members in self._job.placement.groups.values())

    def start(self, net: Network, checks: Sequence[Callable[[], None]]) -> None:
        """Fork the ranks into their servers' network namespaces.

        Until the clock starts, `checks` are made with each `check`: they raise `RunFailed` if something that
        ranks connect through does not work.
        """
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        if not select.select([self._zygote.stdout], [], [], _IMPORT_S)[0]:
            raise RunFailed(f"the workers' parent process has not imported torch within {_IMPORT_S:.0f} s")
        if self._zygote.stdout.readline().strip() != b"ready":
            raise RunFailed("the workers' parent process could not import torch")
        os.set_blocking(self._zygote.stdout.fileno(), False)
        raw = msgspec.msgpack.encode([self._config(net, r.rank) for r in self._job.placement.ranks])
        self._zygote.stdin.write(len(raw).to_bytes(8, "big") + raw)
        self._zygote.stdin.flush()
        self._checks = tuple(checks)

    def _config(self, net: Network, rank: int) -> RankConfig:
        job = self._job
        server = job.placement.server_of(rank)
        options = job.workers
        return RankConfig(
            rank=rank,
            servers=tuple(r.server for r in job.placement.ranks),
            addresses={name: host.ip for name, host in net.wiring.hosts.items()},
            interface=net.host_devices[server],
            namespace_pid=net.host_pids[server],
            store_host=net.wiring.hosts[job.placement.server_of(0)].ip,
            store_port=_STORE_PORT,
            lanes=self._lanes,
            probes=self._probes,
            groups=job.placement.groups,
            time_dilation=job.scale.time_dilation,
            bytes_scale=job.scale.bytes_scale,
            chunk_bytes=options.chunk_bytes,
            verify_share=options.verify_share,
            seed=job.seed,
            device=options.device if self._model is None else Device.CPU,
            compute=options.compute,
            model=self._model,
            to_controller=self._endpoints.to_controller,
            from_controller=self._endpoints.from_controller(str(rank)),
            to_coordinator=self._endpoints.to_coordinator,
            from_coordinator=self._endpoints.from_coordinator(rank),
        )

    # --- messages -------------------------------------------------------------------------------

    def send(self, rank: int, message: ToRank) -> None:
        self._out[rank].send(encode(message))

    def send_all(self, message: ToRank) -> None:
        for rank in self._out:
            self.send(rank, message)

    def receive(self, timeout_s: float) -> FromRank | None:
        """Return the next message, or None after `timeout_s` or a heartbeat.

        Raises `RunFailed` if a rank has trouble.
        """
        if not self.inbox.poll(max(0, round(timeout_s * 1000))):
            self.check()
            return None
        message: FromRank = decode_from_rank(self.inbox.recv())
        if isinstance(message, RankTrouble):
            raise self._failure(message)
        if isinstance(message, Beat):
            self._steps[message.rank] = message.steps
            if self._silences is not None:
                self._silences.heard(_name(message.rank))
            self.check()  # beats come so often that there may never be a timeout
            return None
        return message

    @property
    def steps(self) -> int:
        """How much the ranks have recorded, as of their last heartbeats. It grows while they get on."""
        return sum(self._steps.values())

    def _failure(self, trouble: RankTrouble) -> RunFailed:
        """The failure to raise for `trouble`: the death of a rank if there is one, since it is the cause."""
        deadline = time.monotonic() + _OBITUARY_S
        try:
            while time.monotonic() < deadline:
                self.check()
                time.sleep(0.02)
        except RunFailed as death:
            return death
        return RunFailed(f"rank {trouble.rank}: {trouble.message}")

    def check(self) -> None:
        """Raise `RunFailed` if a rank or the zygote has died, or if a rank is silent."""
        assert self._zygote.stdout is not None
        word = self._zygote.stdout.read()
        if word:
            raise RunFailed(word.decode(errors="replace").strip() + self._memory.note())
        if self._zygote.poll() is not None:
            raise RunFailed(
                f"the workers' parent process ended ({self._zygote.returncode}){self._memory.note()}"
            )
        for check in self._checks:
            check()
        if self._silences is not None:
            self._silences.look(time.monotonic())
            if silent := self._silences.too_long():
                asleep = stopped().values()
                who = ", ".join(f"{rank} (stopped)" if rank in asleep else rank for rank in silent)
                raise RunFailed(f"nothing has been heard of {who} for {PATIENCE_S:.0f} s")

    def wait_until_ready(self) -> None:
        """Return when every rank has connected all its lanes and groups."""
        waiting = {r.rank for r in self._job.placement.ranks}
        deadline = time.monotonic() + _READY_S
        while waiting:
            message = self.receive(0.5)
            if isinstance(message, Ready):
                waiting.discard(message.rank)
                self.device, self.backend = message.device, message.backend
            if time.monotonic() > deadline:
                raise RunFailed(f"ranks {sorted(waiting)} did not connect within {_READY_S:.0f} s")

    def probe(self, net: Network, faster: float = 1.0) -> list[ProbeResult]:
        """Load the NICs of all servers with ranks at once, in both directions, and measure what arrives.

        The links run at `faster` times their rates.
        """
        job = self._job
        routes = {
            p.id: net.wiring.paths[f"{job.placement.server_of(p.src)} {job.placement.server_of(p.dst)}"][0]
            for p in self._probes
        }
        crossing: dict[tuple[str, str], int] = {}
        for route in routes.values():
            for hop in itertools.pairwise(route):
                crossing[hop] = crossing.get(hop, 0) + 1
        nominal = {
            id_: min(
                faster * job.scale.wire_bps(net.wiring.port_bps[f"{a}->{b}"]) / crossing[a, b]
                for a, b in itertools.pairwise(route)
            )
            for id_, route in routes.items()
        }
        at = time.monotonic_ns() + 100_000_000
        for probe in self._probes:
            order = RunProbe(
                wire_bytes=round(nominal[probe.id] * _PROBE_LENGTH_S / 8),
                at_wall_ns=at,
                probe=probe.id,
            )
            self.send(probe.src, order)
            self.send(probe.dst, order)
        results: list[ProbeResult] = []
        deadline = time.monotonic() + _PROBE_S
        while len(results) < len(self._probes):
            message = self.receive(0.5)
            if isinstance(message, Probed):
                route = routes[message.probe]
                results.append(
                    ProbeResult(
                        src=route[0],
                        dst=route[-1],
                        delivered_bps=message.wire_bytes * 8 / message.seconds,
                        nominal_bps=nominal[message.probe],
                    )
                )
            if time.monotonic() > deadline:
                raise RunFailed("the fabric is so slow that the probe of its links did not end")
        return results

    def start_clock(self, zero_wall_ns: int) -> None:
        self._checks = ()
        # Not before: to set up a GPU may hold up a rank for longer than a rank may be silent.
        self._silences = Silences(map(_name, self._steps), time.monotonic())
        self.send_all(Start(zero_wall_ns=zero_wall_ns))

    def finish(self) -> list[Records]:
        """Ask every rank for its records, then let all of them end.

        A rank that has sent its records stays until all ranks have. If it left at once, slower ranks would
        take its closed connections for a failure.
        """
        self.send_all(Finish())
        records: dict[int, Records] = {}
        patience_s = _FINISH_S if self._model is None else _FINISH_S + _CHECK_S
        deadline = time.monotonic() + patience_s
        while len(records) < len(self._out):
            message = self.receive(0.5)
            if isinstance(message, Records):
                records[message.rank] = message
            if time.monotonic() > deadline:
                missing = sorted(self._out.keys() - records.keys())
                raise RunFailed(f"ranks {missing} have not sent their records within {patience_s:.0f} s")
        self.send_all(Leave())
        return [records[rank] for rank in sorted(records)]
