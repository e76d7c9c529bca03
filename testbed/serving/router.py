"""Which prefill unit a request goes to, and which decode worker gets its KV.

Both are chosen from what the serving system knows at that moment; a choice by name from the two
registries at the end. A router may keep state (a turn to take), but none about requests.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from testbed.job import ServingOptions


class UnitView(msgspec.Struct, frozen=True, kw_only=True):
    """A unit as a router sees it for one request.

    `queued_tokens` are the new tokens it has yet to finish, waiting and running. `cached_tokens`
    is how much of the request's prompt its own replicas hold.
    """

    queued_tokens: int
    cached_tokens: int


class Router(Protocol):
    def choose(self, units: Sequence[UnitView]) -> int:
        """The index of the unit that a request is sent to. `units` is not empty."""
        ...


class LeastQueuedTokens:
    """The unit with the least work ahead; the first of equals."""

    def choose(self, units: Sequence[UnitView]) -> int:
        return min(range(len(units)), key=lambda i: (units[i].queued_tokens, i))


class RoundRobin:
    """Unit after unit, whatever their load."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, units: Sequence[UnitView]) -> int:
        chosen = self._turn % len(units)
        self._turn += 1
        return chosen


class PrefixAffinity:
    """The unit that holds most of the prompt, ties by queue, unless it is too far behind.

    A unit with more than `guard_tokens` queued above the least loaded one is passed over: past
    that, waiting for the cached prefix costs more than fetching it from there.
    """

    def __init__(self, guard_tokens: int) -> None:
        self._guard_tokens = guard_tokens

    def choose(self, units: Sequence[UnitView]) -> int:
        limit = min(unit.queued_tokens for unit in units) + self._guard_tokens
        eligible = [i for i, unit in enumerate(units) if unit.queued_tokens <= limit]
        return min(eligible, key=lambda i: (-units[i].cached_tokens, units[i].queued_tokens, i))


class DecodeChoice(Protocol):
    def choose(self, loads_tokens: Sequence[int]) -> int:
        """The index of a decode worker, given the prompt tokens each is still waiting for."""
        ...


class DecodeRoundRobin:
    """Worker after worker."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, loads_tokens: Sequence[int]) -> int:
        chosen = self._turn % len(loads_tokens)
        self._turn += 1
        return chosen


class DecodeLeastLoaded:
    """The worker with the fewest prompt tokens on their way to it; the first of equals."""

    def choose(self, loads_tokens: Sequence[int]) -> int:
        return min(range(len(loads_tokens)), key=lambda i: (loads_tokens[i], i))


ROUTERS: dict[str, Callable[[ServingOptions], Router]] = {
    "least-queued-tokens": lambda _: LeastQueuedTokens(),
    "round-robin": lambda _: RoundRobin(),
    # One full batch: about what a request waits longer there than at the least loaded unit.
    "prefix-affinity": lambda options: PrefixAffinity(options.max_batch_tokens),
}

DECODE_CHOICES: dict[str, Callable[[ServingOptions], DecodeChoice]] = {
    "round-robin": lambda _: DecodeRoundRobin(),
    "least-loaded": lambda _: DecodeLeastLoaded(),
}


def make_router(options: ServingOptions) -> Router:
    """The router called `options.router`. Raises `ValueError` naming the known ones."""
    if options.router not in ROUTERS:
        raise ValueError(f"unknown router {options.router!r} (known: {', '.join(ROUTERS)})")
    return ROUTERS[options.router](options)


def make_decode_choice(options: ServingOptions) -> DecodeChoice:
    """The decode choice called `options.decode_choice`. Raises `ValueError` naming the known ones."""
    if options.decode_choice not in DECODE_CHOICES:
        known = ", ".join(DECODE_CHOICES)
        raise ValueError(f"unknown decode choice {options.decode_choice!r} (known: {known})")
    return DECODE_CHOICES[options.decode_choice](options)
