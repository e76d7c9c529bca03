"""Which prefill unit a request goes to: routers by name, with the registry at the end.

A router chooses from what the serving system knows at that moment. It may keep state, such as whose turn it
is, but no state about requests.
"""

import random
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Protocol

import msgspec

from testbed.job import Request, ServingOptions
from testbed.serving.turns import Turns

HASHED_BLOCKS = 4
"""`dual-hash` hashes this many blocks from the beginning of a prompt, or all if there are fewer."""


ALIKE = 1.05
"""`kv-aware` takes two sums of times for equal if one is at most this many times the other."""


class UnitView(msgspec.Struct, frozen=True, kw_only=True):
    """A unit as a router sees it for one request.

    `queued_tokens` are the new tokens that the unit has yet to compute, in requests that wait and requests
    that run; `queue_ns` is how long it takes for them. `cached_tokens` are the tokens of the prompt that
    its own replicas hold. They are known only to a router that asks for `prefixes`. `ports_ns` is how long
    the ports of its servers take for the S1 and S3 that they have still to send, as a mean over its
    replicas. It is known only to a router that asks for `ports`.

    `transfer_ns` is how long the request would wait for the prefix it has to fetch, `compute_ns` how long a
    batch of the waiting requests and this one would take, and `delivery_ns` how much later its KV would have
    left the unit's servers. They are estimated only for a router that asks for `costs`, and `queue_ns` is
    then the time until the running batches end (`ServingSystem`).
    """

    queued_tokens: int
    cached_tokens: int
    queue_ns: float = 0.0
    ports_ns: float = 0.0
    transfer_ns: float = 0.0
    compute_ns: float = 0.0
    delivery_ns: float = 0.0

    @property
    def busy_ns(self) -> float:
        """How long the unit is busy with what it has, computing or sending: the two go on at once."""
        return max(self.queue_ns, self.ports_ns)


class Router(Protocol):
    prefixes: bool
    """Whether the router looks at how much of the prompt a unit holds."""

    ports: bool
    """Whether the router looks at what the ports of a unit have still to send."""

    costs: bool
    """Whether the router looks at what a request would cost, in time."""

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        """The index of the unit that `request` goes to. `units` is not empty."""
        ...


class LeastQueuedTokens:
    """The unit with the fewest queued tokens. A tie goes to the unit that was taken longest ago."""

    prefixes = False
    ports = False
    costs = False

    def __init__(self) -> None:
        self._turns: Turns[int] = Turns()

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        return self._turns.take_least(range(len(units)), lambda i: units[i].queued_tokens)


class RoundRobin:
    """Each unit in turn, whatever their load."""

    prefixes = False
    ports = False
    costs = False

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        chosen = self._turn % len(units)
        self._turn += 1
        return chosen


class Random:
    """A unit at random, all equally likely; the same units for the same seed."""

    prefixes = False
    ports = False
    costs = False

    def __init__(self, seed: int) -> None:
        self._draws = random.Random(seed)

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        return self._draws.randrange(len(units))


class PrefixAffinity:
    """The unit that holds most of the prompt, unless it is too busy. The less busy unit wins a tie.

    A unit is passed over if it is busy for over `guard_ns` longer than the least busy one. Beyond that,
    waiting for the unit with the prefix is taken to cost more than fetching the prefix from it. A unit is
    busy as long as it computes or its ports send: a prefix that a unit holds costs it little compute, but as
    much S3 as any other. If units still tie, the one that was taken longest ago is taken.
    """

    prefixes = True
    ports = True
    costs = False

    def __init__(self, guard_ns: float) -> None:
        self._guard_ns = guard_ns
        self._turns: Turns[int] = Turns()

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        limit = min(unit.busy_ns for unit in units) + self._guard_ns
        eligible = [i for i, unit in enumerate(units) if unit.busy_ns <= limit]
        return self._turns.take_least(eligible, lambda i: (-units[i].cached_tokens, round(units[i].busy_ns)))


class DualHash:
    """One of two units that the beginning of the prompt hashes to: the one with fewer queued tokens.

    So the requests of a popular prefix have two units to go to, and few other units compute and keep it. A
    unit of the two that computes or sends for so long that the request would miss its deadline is passed
    over. If both do, the request goes to the least busy of all units: SLO attainment comes before reuse. The
    hashes do not depend on caches, so no cache has to be searched. A tie goes to the unit that was taken
    longest ago.
    """

    prefixes = False
    ports = True
    costs = False

    def __init__(self) -> None:
        self._turns: Turns[int] = Turns()

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        pair = candidates(request, len(units))
        in_time = [i for i in pair if units[i].busy_ns + request.unloaded_ns <= request.slo_ns]
        if not in_time:
            return self._turns.take_least(range(len(units)), lambda i: round(units[i].busy_ns))
        return self._turns.take_least(in_time, lambda i: units[i].queued_tokens)


def candidates(request: Request, units: int) -> tuple[int, ...]:
    """The two of `units` units that `request` hashes to, or the only unit if there is one.

    They depend on its first `HASHED_BLOCKS` block ids alone. A request without blocks shares no prefix, so
    its id decides. The first unit is uniform over all units, and the second over the others.
    """
    if units == 1:
        return (0,)
    beginning = request.blocks[:HASHED_BLOCKS]
    text = f"blocks {beginning}" if beginning else f"request {request.id}"
    first = _hash(text, "first") % units
    return first, (first + 1 + _hash(text, "second") % (units - 1)) % units


def _hash(text: str, which: str) -> int:
    """The same on every machine and in every process, unlike `hash`."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8, person=which.encode()).digest())


class KvAware:
    """The unit with the lowest sum of queue, transfer, compute and delivery time.

    Units whose sums are within `ALIKE` of the lowest one tie: the estimates are no better than that. The one
    that was taken longest ago is taken. So a prefix spreads where it costs a request next to nothing: to
    fetch it from a unit keeps that unit's ports as busy as to deliver it from there.
    """

    prefixes = False
    ports = True
    costs = True

    def __init__(self) -> None:
        self._turns: Turns[int] = Turns()

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        ns = [unit.queue_ns + unit.transfer_ns + unit.compute_ns + unit.delivery_ns for unit in units]
        limit = ALIKE * min(ns)
        return self._turns.take_least(range(len(units)), lambda i: ns[i] > limit)


ROUTERS: dict[str, Callable[[ServingOptions, int, float], Router]] = {
    "least-queued-tokens": lambda options, seed, token_ns: LeastQueuedTokens(),
    "round-robin": lambda options, seed, token_ns: RoundRobin(),
    "random": lambda options, seed, token_ns: Random(seed),
    # One full batch of the slowest unit: about how much longer a request may wait there than at the least
    # busy unit.
    "prefix-affinity": lambda options, seed, token_ns: PrefixAffinity(options.max_batch_tokens * token_ns),
    "dual-hash": lambda options, seed, token_ns: DualHash(),
    "kv-aware": lambda options, seed, token_ns: KvAware(),
}


def make_router(options: ServingOptions, *, seed: int, token_ns: float) -> Router:
    """The router called `options.router`, for units that take at most `token_ns` for a new token.

    Raises `ValueError` for an unknown name; the message lists the known ones.
    """
    if options.router not in ROUTERS:
        raise ValueError(f"unknown router {options.router!r} (known: {', '.join(ROUTERS)})")
    return ROUTERS[options.router](options, seed, token_ns)
