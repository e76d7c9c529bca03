"""Which prefill unit a request goes to: routers by name, the registry at the end.

A router chooses from what the serving system knows at that moment. It may keep state (a turn to take), but
none about requests.
"""

import random
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Protocol

import msgspec

from testbed.job import Request, ServingOptions

HASHED_BLOCKS = 4
"""`dual-hash` tells prompts apart by so many blocks from their beginning, or by all if there are fewer."""


class UnitView(msgspec.Struct, frozen=True, kw_only=True):
    """A unit as a router sees it for one request.

    `queued_tokens` are the new tokens it has yet to finish, waiting and running; `queue_ns` is how long
    they take it. `cached_tokens` is how much of the request's prompt its own replicas hold. `transfer_ns`
    is how long the request would wait for the prefix it has to fetch, and `compute_ns` how long it would
    compute: estimates that are made only for a router that asks for `costs`
    (`testbed.serving.routing.estimates`).
    """

    queued_tokens: int
    cached_tokens: int
    queue_ns: float = 0.0
    transfer_ns: float = 0.0
    compute_ns: float = 0.0


class Router(Protocol):
    costs: bool
    """Whether it looks at what a request would cost in time."""

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        """The index of the unit that `request` is sent to. `units` is not empty."""
        ...


class LeastQueuedTokens:
    """The unit with the least work ahead; the first of equals."""

    costs = False

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        return _least_queued(range(len(units)), units)


class RoundRobin:
    """Unit after unit, whatever their load."""

    costs = False

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        chosen = self._turn % len(units)
        self._turn += 1
        return chosen


class Random:
    """Any unit, as likely as another; the same ones for the same seed."""

    costs = False

    def __init__(self, seed: int) -> None:
        self._draws = random.Random(seed)

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        return self._draws.randrange(len(units))


class PrefixAffinity:
    """The unit that holds most of the prompt, ties by queue, unless it is too far behind.

    A unit with more than `guard_tokens` queued above the least loaded one is passed over: past
    that, waiting for the cached prefix costs more than fetching it from there.
    """

    costs = False

    def __init__(self, guard_tokens: int) -> None:
        self._guard_tokens = guard_tokens

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        limit = min(unit.queued_tokens for unit in units) + self._guard_tokens
        eligible = [i for i, unit in enumerate(units) if unit.queued_tokens <= limit]
        return min(eligible, key=lambda i: (-units[i].cached_tokens, units[i].queued_tokens, i))


class DualHash:
    """Of two units that the beginning of the prompt is hashed to, the one with less work ahead.

    So a prefix is computed and kept in two places at most, and a popular one has two units to go to.
    Where the queue of both would make the request miss its deadline, the least loaded of all units
    takes it: SLO attainment before reuse. The hashes know no cache, so nothing has to be looked up.
    """

    costs = False

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        pair = candidates(request, len(units))
        if all(units[i].queue_ns + request.unloaded_ns > request.slo_ns for i in pair):
            return _least_queued(range(len(units)), units)
        return _least_queued(pair, units)


def candidates(request: Request, units: int) -> tuple[int, ...]:
    """The two units of `units` that `request` is hashed to, the same unit only where there is one.

    They depend on its first `HASHED_BLOCKS` block ids and on nothing else; those of a request without
    blocks, which shares a prefix with nobody, on its id. The first is uniform over the units, the second
    over the others.
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
    """The unit with the least queue, transfer and compute time for the request; the first of equals."""

    costs = True

    def choose(self, request: Request, units: Sequence[UnitView]) -> int:
        def ns(i: int) -> float:
            return units[i].queue_ns + units[i].transfer_ns + units[i].compute_ns

        return min(range(len(units)), key=lambda i: (ns(i), i))


def _least_queued(among: Sequence[int], units: Sequence[UnitView]) -> int:
    """Of equals the first of `among`."""
    return min(among, key=lambda i: units[i].queued_tokens)


ROUTERS: dict[str, Callable[[ServingOptions, int], Router]] = {
    "least-queued-tokens": lambda options, seed: LeastQueuedTokens(),
    "round-robin": lambda options, seed: RoundRobin(),
    "random": lambda options, seed: Random(seed),
    # One full batch: about what a request waits longer there than at the least loaded unit.
    "prefix-affinity": lambda options, seed: PrefixAffinity(options.max_batch_tokens),
    "dual-hash": lambda options, seed: DualHash(),
    "kv-aware": lambda options, seed: KvAware(),
}


def make_router(options: ServingOptions, *, seed: int) -> Router:
    """The router called `options.router`. Raises `ValueError` naming the known ones."""
    if options.router not in ROUTERS:
        raise ValueError(f"unknown router {options.router!r} (known: {', '.join(ROUTERS)})")
    return ROUTERS[options.router](options, seed)
