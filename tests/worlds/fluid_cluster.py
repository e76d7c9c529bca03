"""A whole serving cluster on a fluid network: requests in, TTFTs out, under any policy.

The serving system, the plans and the scheduler are the real ones; ranks and network are idealised. Ranks
compute for as long as the plan says. A collective ends when its last share does. Flows share the ports in
strict priority by (level, order), and max-min fairly if these are equal. Nothing is lost, and nothing takes
time that the plan does not name. On purpose, it shares no code with the conductor, the lanes and the
simulator, so that it can judge them. It computes in floating point, for speed; `fluid` is exact, but has only
flows.
"""

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from controller.flow import Assignment, Flow, Level, PortId, Stage, Transfer
from controller.scheduler import Scheduler
from testbed.job import Job
from testbed.serving.plans.outlook import announced
from testbed.serving.system import ServingSystem
from workers.plan import BatchPlan, Collective, CollectiveKind, Compute

_EPS_BYTES = 1e-3


@dataclass(slots=True)
class _Moving:
    flow: Flow
    ports: tuple[tuple[PortId, float], ...]
    left: float
    done: Callable[[], None]
    place: tuple[int, float] = (Level.SCAVENGER, 0.0)
    cap: float | None = None
    rate: float = 0.0


@dataclass(slots=True)
class Outcome:
    """The results of a run of the cluster; times in model nanoseconds."""

    ttft_ns: dict[int, int] = field(default_factory=dict)
    in_time: dict[int, bool] = field(default_factory=dict)
    collective_ns: list[float] = field(default_factory=list)
    levels: dict[str, list[Level]] = field(default_factory=lambda: defaultdict(list))
    prefill_ns: dict[int, float] = field(default_factory=dict)

    @property
    def attainment(self) -> float:
        return sum(self.in_time.values()) / len(self.in_time)

    @property
    def mean_ttft_ms(self) -> float:
        return sum(self.ttft_ns.values()) / len(self.ttft_ns) / 1e6

    @property
    def mean_collective_ms(self) -> float:
        return sum(self.collective_ns) / max(1, len(self.collective_ns)) / 1e6


class FluidCluster:
    """Plays `job` under `scheduler`; `run` returns when every request has its first token."""

    def __init__(self, job: Job, scheduler: Scheduler) -> None:
        self._job = job
        self._scheduler = scheduler
        self._system = ServingSystem(job)
        self._bytes_per_ns = {link.id: link.bps / 8e9 for link in job.topology.links}
        self._moving: dict[str, _Moving] = {}
        self._now = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._arrived: set[str] = set()
        self._waits: list[tuple[set[str], Iterator[object]]] = []
        self._stale = False
        self._pace: dict[str, dict[int, int]] = {}
        self._missing: dict[int, int] = {}
        self._requests = {request.id: request for request in job.requests}
        self.outcome = Outcome()

    def run(self) -> Outcome:
        for request in self._job.requests:
            self._at(request.arrival_ns, lambda request=request: self._arrive(request.id))
        while len(self.outcome.ttft_ns) < len(self._job.requests):
            self._step()
        return self.outcome

    # --- time -----------------------------------------------------------------------------------

    def _at(self, time_ns: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time_ns, next(self._numbers), act))

    def _step(self) -> None:
        if self._stale:
            self._share()
            self._stale = False
        finish = min((m.left / m.rate for m in self._moving.values() if m.rate > 0), default=None)
        times = [] if finish is None else [self._now + finish]
        if self._timers:
            times.append(self._timers[0][0])
        tick = self._scheduler.next_tick_ns()
        if tick is not None:
            times.append(max(self._now, float(tick)))
        assert times, "requests are waiting, but nothing moves and nothing is to come"
        until = min(times)
        spent = until - self._now
        self._now = until
        for moving in self._moving.values():
            moving.left -= moving.rate * spent
        for moving in [m for m in self._moving.values() if m.left <= _EPS_BYTES]:
            self._finish(moving)
        while self._timers and self._timers[0][0] <= self._now:
            heapq.heappop(self._timers)[2]()
        if tick is not None and tick <= self._now:
            for moving in self._moving.values():
                self._obey(self._scheduler.progress(self._time, moving.flow.id, max(1, round(moving.left))))
            self._obey(self._scheduler.tick(self._time))

    @property
    def _time(self) -> int:
        return round(self._now)

    # --- the serving side -----------------------------------------------------------------------

    def _arrive(self, request: int) -> None:
        self._start(self._system.arrive(self._time, self._requests[request]))

    def _start(self, plans: list[BatchPlan]) -> None:
        for plan in plans:
            batch = announced(plan, self._job.topology, self._job.placement)
            self._obey(self._scheduler.batch_started(self._time, batch))
            self._pace[plan.id] = dict.fromkeys(plan.ranks, -1)
            for request in plan.requests:
                self._missing[request.request] = sum(request.p2d_flows)
            for layer in plan.layers:
                for transfer in layer.wait:
                    self._send(transfer, lambda transfer=transfer: self._arrives(transfer.id))
            for rank in plan.ranks:
                self._resume(self._rank_loop(plan, rank))

    def _rank_loop(self, plan: BatchPlan, rank: int) -> Iterator[object]:
        place = plan.ranks.index(rank)
        for layer in plan.layers:
            self._advance(plan, rank, layer.index)
            yield {t.id for t in layer.wait if t.dst == rank}
            for step in layer.steps:
                if isinstance(step, Compute):
                    yield step.seconds[place] * 1e9
                elif rank in self._job.placement.groups[step.group]:
                    began = self._now
                    self._share_of(plan, layer.index, step, rank)
                    members = self._job.placement.groups[step.group]
                    yield {f"{step.id}.{i}" for i in range(len(members))}
                    self.outcome.collective_ns.append(self._now - began)
            for transfer in layer.post:
                if transfer.src == rank:
                    self._send(transfer, lambda t=transfer: self._delivered(plan, t.request or 0))
        self._advance(plan, rank, len(plan.layers))

    def _resume(self, loop: Iterator[object]) -> None:
        for wanted in loop:
            if isinstance(wanted, set):
                if wanted <= self._arrived:
                    continue
                self._waits.append((wanted, loop))
                return
            if wanted:
                self._at(self._now + wanted, lambda: self._resume(loop))  # type: ignore[operator]
                return

    def _arrives(self, flow: str) -> None:
        self._arrived.add(flow)
        ready = [wait for wait in self._waits if flow in wait[0] and wait[0] <= self._arrived]
        for wait in ready:
            self._waits.remove(wait)
        for _, loop in ready:
            self._resume(loop)

    def _advance(self, plan: BatchPlan, rank: int, layer: int) -> None:
        pace = self._pace[plan.id]
        before = min(pace.values())
        pace[rank] = layer
        reached = min(pace.values())
        if reached == before:
            return
        self._obey(self._scheduler.layer_advanced(self._time, plan.id, reached))
        if reached == len(plan.layers):
            del self._pace[plan.id]
            for request in plan.requests:
                self.outcome.prefill_ns[request.request] = self._now
            self._at(self._now, lambda: self._start(self._system.batch_done(self._time, plan.id)))

    def _delivered(self, plan: BatchPlan, request: int) -> None:
        self._missing[request] -= 1
        if self._missing[request] == 0:
            decode_s = next(r.decode_step_s for r in plan.requests if r.request == request)
            self._at(self._now + decode_s * 1e9, lambda: self._first_token(request))

    def _first_token(self, request: int) -> None:
        wanted = self._requests[request]
        self._system.first_token(self._time, request)
        self.outcome.ttft_ns[request] = self._time - wanted.arrival_ns
        self.outcome.in_time[request] = self._time <= wanted.deadline_ns

    # --- flows ----------------------------------------------------------------------------------

    def _send(self, transfer: Transfer, done: Callable[[], None]) -> None:
        server_of = self._job.placement.server_of
        paths = self._job.topology.paths(server_of(transfer.src), server_of(transfer.dst))
        load: dict[PortId, float] = {}
        for path in paths:
            for port in path:
                load[port] = load.get(port, 0.0) + transfer.size_bytes / len(paths)
        flow = Flow(
            id=transfer.id,
            stage=transfer.stage,
            size_bytes=transfer.size_bytes,
            load={port: round(size) for port, size in load.items()},
            batch=transfer.batch,
            request=None if transfer.request is None else str(transfer.request),
            layer=transfer.layer,
            coflow=f"{transfer.batch}.l{transfer.layer}.{transfer.stage.value}",
            deadline_ns=transfer.deadline_ns,
            downstream_ns=transfer.downstream_ns,
        )
        self._submit(flow, done)

    def _share_of(self, plan: BatchPlan, layer: int, step: Collective, rank: int) -> None:
        members = self._job.placement.groups[step.group]
        index = members.index(rank)
        name = f"{step.id}.{index}"
        own = self._peer_bytes(step, index, len(members))
        servers = [self._job.placement.server_of(member) for member in members]
        load: dict[PortId, int] = {}
        for peer, size in own.items():
            paths = self._job.topology.paths(servers[index], servers[peer])
            for path in paths:
                for port in path:
                    load[port] = load.get(port, 0) + size // len(paths)
        flow = Flow(
            id=name,
            stage=Stage.COLLECTIVE,
            size_bytes=sum(own.values()),
            load=load,
            batch=plan.id,
            layer=layer,
            coflow=step.id,
            downstream_ns=step.downstream_ns,
        )
        self._submit(flow, lambda: self._arrives(name))

    @staticmethod
    def _peer_bytes(step: Collective, index: int, members: int) -> dict[int, int]:
        """Bytes from member `index` to each peer; a ring all-reduce sends 2 (p - 1) / p to the next."""
        if step.kind is CollectiveKind.ALL_TO_ALL:
            return {j: size for j, size in enumerate(step.sizes[index]) if j != index}
        size = round(2 * (members - 1) / members * step.sizes[0][0])
        return {(index + 1) % members: size}

    def _submit(self, flow: Flow, done: Callable[[], None]) -> None:
        ports = tuple((port, size / flow.size_bytes) for port, size in flow.load.items() if size)
        self._moving[flow.id] = _Moving(flow, ports, float(flow.size_bytes), done)
        self._stale = True
        self._obey(self._scheduler.submit(self._time, flow))
        if not ports:
            self._moving[flow.id].left = 0.0
            self._at(self._now, lambda: None)

    def _finish(self, moving: _Moving) -> None:
        del self._moving[moving.flow.id]
        self._stale = True
        self._obey(self._scheduler.completion(self._time, moving.flow.id))
        moving.done()

    def _obey(self, said: list[Assignment]) -> None:
        for one in said:
            moving = self._moving[one.flow]
            moving.place = (one.level, one.order)
            moving.cap = None if one.rate_bps is None else one.rate_bps / 8e9
            self.outcome.levels[one.flow].append(one.level)
            self._stale = True

    # --- the network ----------------------------------------------------------------------------

    def _share(self) -> None:
        spare = dict(self._bytes_per_ns)
        groups: dict[tuple[int, float], list[_Moving]] = {}
        for moving in self._moving.values():
            groups.setdefault(moving.place, []).append(moving)
        for place in sorted(groups):
            _fill(groups[place], spare)


def _fill(group: list[_Moving], spare: dict[PortId, float]) -> None:
    """Set max-min rates: settle the flows on the port that gives them least, and repeat."""
    weight: dict[PortId, float] = {}
    there: dict[PortId, list[_Moving]] = {}
    unsettled: dict[int, _Moving] = {}
    for moving in group:
        moving.rate = 0.0
        if any(spare[port] <= 1e-12 for port, _ in moving.ports):
            continue
        unsettled[id(moving)] = moving
        for port, share in moving.ports:
            weight[port] = weight.get(port, 0.0) + share
            there.setdefault(port, []).append(moving)
    while unsettled:
        port, rate = min(
            ((port, spare[port] / total) for port, total in weight.items() if total > 1e-12),
            key=lambda item: item[1],
            default=(None, 0.0),
        )
        if port is None:
            break
        capped = [m for m in unsettled.values() if m.cap is not None and m.cap <= rate]
        if capped:
            slowest = min(capped, key=lambda m: m.cap or 0.0)
            settle, rate = [slowest], slowest.cap or 0.0
        else:
            settle = [m for m in there[port] if id(m) in unsettled]
        for moving in settle:
            moving.rate = rate
            del unsettled[id(moving)]
            for crossed, share in moving.ports:
                spare[crossed] -= rate * share
                weight[crossed] -= share
        if not capped:
            weight[port] = 0.0
            spare[port] = max(0.0, spare[port])
