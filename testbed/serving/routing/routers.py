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

HASHED_BLOCKS = 4
"""`dual-hash` hashes this many blocks from the beginning of a prompt, or all if there are fewer."""


class UnitView(msgspec.Struct, frozen=True, kw_only=True):
    """A unit as a router sees it for one request.

    `queued_tokens` are the new tokens that the unit has yet to compute, in requests that wait and requests
    that run; `queue_ns` is how long it takes for them. `cached_tokens` are the tokens of the prompt that
    its own replicas hold. `transfer_ns` is how long the request would wait for the prefix it has to
    fetch, and `compute_ns` how long it would compute. These two are estimated only for a router that
    asks for `costs` (`testbed.serving.routing.estimates`).
    """

    queued_tokens: int
    cached_tokens: int
    queue_ns: float = 0.0
    transfer_ns: float = 0.0
    compute_ns: float = 0.0


class Router(Protocol):
    costs: bool
    """Whether the router looks at what a request would cost, in time."""

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        """The index of the unit that `request` goes to. `units` is not empty."""
        ...


class LeastQueuedTokens:
    """The unit with the fewest queued tokens; the first wins a tie."""

    costs = False

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        return _least_queued(range(len(units)), units)


class RoundRobin:
    """Each unit in turn, whatever their load."""

    costs = False

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        chosen = self._turn % len(units)
        self._turn += 1
        return chosen


class Random:
    """A unit at random, all equally likely; the same units for the same seed."""

    costs = False

    def __init__(self, seed: int) -> None:
        self._draws = random.Random(seed)

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        return self._draws.randrange(len(units))


class PrefixAffinity:
    """The unit that holds most of the prompt, unless its queue is too long. The shorter queue wins a tie.

    A unit is passed over if it has over `guard_tokens` more queued tokens than the least loaded one. Beyond
    that, waiting for the unit with the prefix is taken to cost more than fetching the prefix from it.
    """

    costs = False

    def __init__(self, guard_tokens: int) -> None:
        self._guard_tokens = guard_tokens

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        limit = min(unit.queued_tokens for unit in units) + self._guard_tokens
        eligible = [i for i, unit in enumerate(units) if unit.queued_tokens <= limit]
        return min(eligible, key=lambda i: (-units[i].cached_tokens, units[i].queued_tokens, i))


class DualHash:
    """One of two units that the beginning of the prompt hashes to: the one with fewer queued tokens.

    So the requests of a popular prefix have two units to go to, and few other units compute and keep it. If
    the request would miss its deadline in both queues, it goes to the least loaded of all units: SLO
    attainment comes before reuse. The hashes do not depend on caches, so no cache has to be searched.
    """

    costs = False

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        pair = candidates(request, len(units))
        if all(units[i].queue_ns + request.unloaded_ns > request.slo_ns for i in pair):
            return _least_queued(range(len(units)), units)
        return _least_queued(pair, units)


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
    """The unit with the lowest sum of queue, transfer and compute time; the first wins a tie."""

    costs = True

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        def ns(i: int) -> float:
            return units[i].queue_ns + units[i].transfer_ns + units[i].compute_ns

        return min(range(len(units)), key=lambda i: (ns(i), i))


def _least_queued(among: Sequence[int], units: Sequence[UnitView]) -> int:
    """The first of `among` wins a tie."""
    return min(among, key=lambda i: units[i].queued_tokens)


ROUTERS: dict[str, Callable[[ServingOptions, int], Router]] = {
    "least-queued-tokens": lambda options, seed: LeastQueuedTokens(),
    "round-robin": lambda options, seed: RoundRobin(),
    "random": lambda options, seed: Random(seed),
    # One full batch: about how much longer a request may wait there than at the least loaded unit.
    "prefix-affinity": lambda options, seed: PrefixAffinity(options.max_batch_tokens),
    "dual-hash": lambda options, seed: DualHash(),
    "kv-aware": lambda options, seed: KvAware(),
}


def make_router(options: ServingOptions, *, seed: int) -> Router:
    """The router called `options.router`.

    Raises `ValueError` for an unknown name; the message lists the known ones.
    """
    if options.router not in ROUTERS:
        raise ValueError(f"unknown router {options.router!r} (known: {', '.join(ROUTERS)})")
    return ROUTERS[options.router](options, seed)
