"""The state of a run while it is under way, for people who watch it. No result depends on it."""

import msgspec


class RequestsNow(msgspec.Struct, frozen=True, kw_only=True):
    """Where the requests of a run are.

    Of `total`, those that have arrived are `queued` (in no batch yet), `prefilling`, `decoding` (all of the
    prompt is computed; KV is on its way, or the first decode step runs) or `done`. `met` have met their SLO,
    `missed` have not, or can no longer: their deadline has passed. Requests of the warm-up are in neither.
    """

    total: int
    queued: int
    prefilling: int
    decoding: int
    done: int
    met: int
    missed: int


class FlowsNow(msgspec.Struct, frozen=True, kw_only=True):
    """What the flows of an emulated run do, by level, and the permits that they got.

    A flow is `waiting` for a lane, or it has one and is `changing`: its level is on its way to the switches.
    Or it is `sending`. `permits` were given so far. `latencies_wall_ms` are the latencies of those since the
    last look, as the controller sees them: without the way back to the rank.
    """

    waiting: tuple[int, ...]
    changing: int
    sending: tuple[int, ...]
    permits: int
    latencies_wall_ms: tuple[float, ...]


class PortNow(msgspec.Struct, frozen=True, kw_only=True):
    """What a port sent between its last two samples, as a share of its line rate, by level.

    `backlog_ns` is how long its queues would take to empty, in model time.
    """

    port: str
    shares: tuple[float, ...]
    backlog_ns: int

    @property
    def busy(self) -> float:
        return sum(self.shares)


class LiveState(msgspec.Struct, frozen=True, kw_only=True):
    """A run at the model time `time_ns`. None is what is not known.

    `ports` are the busiest of `ports_in_all`.
    """

    time_ns: int
    requests: RequestsNow | None = None
    flows: FlowsNow | None = None
    ports: tuple[PortNow, ...] = ()
    ports_in_all: int = 0
