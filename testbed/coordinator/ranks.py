"""The coordinator's side of the ranks: the lanes they need, and the messages to and from them."""

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping

import msgspec
import zmq

from controller.flow import PortId
from controller.lanes import lane_name
from controller.wire import Hub
from testbed.coordinator.real_model import real_model
from testbed.coordinator.silence import PATIENCE_S, Silences
from testbed.fabric import RunFailed
from testbed.job import Job
from testbed.lane_counts import LaneCounts
from workers.protocol import (
    Beat,
    Evidence,
    Finish,
    FromRank,
    LaneSpec,
    Leave,
    Probed,
    ProbeSpec,
    RankTrouble,
    Ready,
    Records,
    Rows,
    RunProbe,
    Start,
    ToRank,
    decode_from_rank,
    encode,
)

_READY_S = 120.0
_PROBE_S = 30.0
_FINISH_S = 60.0
_CHECK_S = 180.0
_PROBE_LENGTH_S = 0.6
_OBITUARY_S = 0.5


def lanes_of(job: Job, absent: Collection[int] = ()) -> tuple[LaneSpec, ...]:
    """Return every lane of a run (`LaneCounts`), ordered so that many pairs of ranks connect at once.

    Ranks in `absent` have none.
    """
    counts = LaneCounts(job)
    ranks = len(job.placement.ranks)
    lanes = [
        LaneSpec(id=lane_name(stage, src, dst, i), stage=stage, src=src, dst=dst)
        for stage, src, dst in counts.pairs()
        if src not in absent and dst not in absent
        for i in range(counts.of(stage, src, dst))
    ]
    return tuple(sorted(lanes, key=lambda lane: (_round(lane.src, lane.dst, ranks), lane.id)))


def _round(a: int, b: int, ranks: int) -> int:
    """The round of a round-robin tournament in which `a` and `b` meet. Pairs of a round connect at once."""
    teams = ranks - 1 + ranks % 2
    if teams in (a, b):
        return (2 * min(a, b)) % teams if teams else 0
    return (a + b) % teams if teams else 0


def probes_of(job: Job, absent: Collection[int] = ()) -> tuple[ProbeSpec, ...]:
    """Return probes in a ring over the servers that have ranks: each sends to the next, all at once.

    Ranks in `absent` do not count.
    """
    first: dict[str, int] = {}
    for rank in job.placement.ranks:
        if rank.rank not in absent:
            first.setdefault(rank.server, rank.rank)
    ring = [first[server] for server in job.topology.servers if server in first]
    if len(ring) < 2:
        return ()
    return tuple(
        ProbeSpec(id=f"probe.{a}-{b}", src=a, dst=b) for a, b in zip(ring, ring[1:] + ring[:1], strict=True)
    )


def _nobody_takes(rows: Rows) -> None:
    raise RunFailed(f"rank {rows.rank} has sent what it recorded, and nobody takes it")


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One probed path: the payload rate that arrived, and its part of the line rate; bits/s on the wire."""

    src: str
    dst: str
    delivered_bps: float
    nominal_bps: float


class Ranks(ABC):
    """Exchanges messages with the ranks of `job` over `hub`. A fabric says whether their processes live.

    Ranks in `absent` take no part, as if the job did not have them. Raises `JobRefused` for real layers that
    cannot be computed (`real_model`).
    """

    excused: Callable[[], Collection[str]] = tuple
    """The names of ranks that are stopped because the scenario asks for it."""

    def __init__(self, job: Job, hub: Hub, absent: Collection[int] = ()) -> None:
        self._job = job
        self._hub = hub
        self._lanes = lanes_of(job, absent)
        self._probes = probes_of(job, absent)
        self._groups = {
            name: members
            for name, members in job.placement.groups.items()
            if not any(rank in absent for rank in members)
        }
        self._model = real_model(job)
        self._steps = dict.fromkeys((r.rank for r in job.placement.ranks if r.rank not in absent), 0)
        self._silences: Silences | None = None
        self._evidence: dict[int, list[Evidence]] = {}
        self.recorded: Callable[[Rows], None] = _nobody_takes
        """Takes what ranks have recorded, as it comes. The rest is in what `finish` returns."""
        self.device = ""
        self.backend = ""
        self.silent: frozenset[int] = frozenset()
        """The ranks of which nothing has been heard for too long, once `check` has raised because of that."""

    # --- what a fabric knows of the processes -----------------------------------------------------

    @abstractmethod
    def check_processes(self) -> None:
        """Raise `RunFailed` if a rank has died, or something that ranks need does not work."""

    def name_of(self, rank: int) -> str:
        """A rank in messages to people."""
        return f"rank {rank}"

    def asleep(self) -> Collection[str]:
        """The names of the ranks that are known to be stopped."""
        return ()

    # --- messages -------------------------------------------------------------------------------

    @property
    def inbox(self) -> "zmq.Socket[bytes]":
        """What to poll for messages of ranks."""
        return self._hub.socket

    @property
    def lanes(self) -> int:
        return len(self._lanes)

    @property
    def group_ends(self) -> int:
        return sum(len(members) for members in self._groups.values())

    def send(self, rank: int, message: ToRank) -> None:
        self._hub.send(str(rank), encode(message))

    def send_all(self, message: ToRank) -> None:
        for rank in self._steps:
            self.send(rank, message)

    def receive(self, timeout_s: float) -> FromRank | None:
        """Return the next message, or None after `timeout_s`, a heartbeat, rows or what a rank leaves to
        another.

        Raises `RunFailed` if a rank has trouble, or for what is no message of a rank.
        """
        if not self.inbox.poll(max(0, round(timeout_s * 1000))):
            self.check()
            return None
        try:
            message: FromRank = decode_from_rank(self._hub.receive())
        except zmq.Again:  # what woke us was no message for us
            return None
        except msgspec.MsgspecError as error:
            who = self._hub.sender or "a rank"
            raise RunFailed(f"{who} has sent a message that cannot be read: {error}") from None
        if isinstance(message, RankTrouble | Beat) and message.rank not in self._steps:
            return None  # a rank that is absent may have been cut off only, and does not know it yet
        if isinstance(message, RankTrouble):
            raise self._failure(message)
        if isinstance(message, Beat):
            self._steps[message.rank] = message.steps
            if self._silences is not None:
                self._silences.heard(self.name_of(message.rank))
            self.check()  # beats come so often that there may never be a timeout
            return None
        if isinstance(message, Rows):
            self.recorded(message)
            return None
        if isinstance(message, Evidence):  # what one rank leaves to another is only passed on
            self._evidence.setdefault(message.to, []).append(message)
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
        return RunFailed(f"{self.name_of(trouble.rank)}: {trouble.message}")

    def check(self) -> None:
        """Raise `RunFailed` if a rank has died or is silent."""
        self.check_processes()
        if self._silences is not None:
            for rank in self.excused():
                self._silences.heard(rank)
            self._silences.look(time.monotonic())
            if silent := self._silences.too_long():
                self.silent = frozenset(rank for rank in self._steps if self.name_of(rank) in silent)
                asleep = self.asleep()
                who = ", ".join(f"{rank} (stopped)" if rank in asleep else rank for rank in silent)
                raise RunFailed(f"nothing has been heard of {who} for {PATIENCE_S:.0f} s")

    # --- the phases of a run ----------------------------------------------------------------------

    def wait_until_ready(self) -> None:
        """Return when every rank has connected all its lanes and groups."""
        waiting = set(self._steps)
        deadline = time.monotonic() + _READY_S
        while waiting:
            message = self.receive(0.5)
            if isinstance(message, Ready):
                waiting.discard(message.rank)
                self.device, self.backend = message.device, message.backend
            if time.monotonic() > deadline:
                raise RunFailed(f"ranks {sorted(waiting)} did not connect within {_READY_S:.0f} s")

    def probe(
        self,
        paths: Mapping[str, tuple[tuple[str, ...], ...]],
        port_bps: Mapping[PortId, int],
        faster: float = 1.0,
    ) -> list[ProbeResult]:
        """Load the NICs of all servers with ranks at once, in both directions, and measure what arrives.

        `paths` are those of `controller.openflow.Wiring`, `port_bps` are model bits/s. The links run at
        `faster` times their rates.
        """
        job = self._job
        routes = {
            p.id: paths[f"{job.placement.server_of(p.src)} {job.placement.server_of(p.dst)}"][0]
            for p in self._probes
        }
        crossing: dict[tuple[str, str], int] = {}
        for route in routes.values():
            for hop in itertools.pairwise(route):
                crossing[hop] = crossing.get(hop, 0) + 1
        nominal = {
            id_: min(
                faster * job.scale.wire_bps(port_bps[f"{a}->{b}"]) / crossing[a, b]
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
        # Not before: to set up a GPU may hold up a rank for longer than a rank may be silent.
        self._silences = Silences(map(self.name_of, self._steps), time.monotonic())
        self.send_all(Start(zero_wall_ns=zero_wall_ns))

    def finish(self) -> list[Records]:
        """Ask every rank for its records, then let all of them end.

        A rank that has sent its records stays until all ranks have. If it left at once, slower ranks would
        take its closed connections for a failure.
        """
        for rank in self._steps:
            self.send(rank, Finish(evidence=tuple(self._evidence.get(rank, ()))))
        records: dict[int, Records] = {}
        patience_s = _FINISH_S + _CHECK_S if self._model is not None else _FINISH_S
        deadline = time.monotonic() + patience_s
        while len(records) < len(self._steps):
            message = self.receive(0.5)
            if isinstance(message, Records) and message.rank in self._steps:
                records[message.rank] = message
            if time.monotonic() > deadline:
                missing = sorted(self._steps.keys() - records.keys())
                raise RunFailed(f"ranks {missing} have not sent their records within {patience_s:.0f} s")
        self.send_all(Leave())
        return [records[rank] for rank in sorted(records)]
