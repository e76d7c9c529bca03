"""Which decode worker gets the KV of a request: choices by name, the registry at the end."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from testbed.job import ServingOptions


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A decode worker as seen for one request.

    `tokens` are the prompt tokens on their way to it. `ports_s`, for a choice that asks for `ports`, is of
    each port from the request's replica to it how long the port has to send what is still to come of S3,
    this request's included, at line rate: the longest first. It is empty for a worker on the same server.
    """

    tokens: int
    ports_s: tuple[float, ...] = ()


class DecodeChoice(Protocol):
    ports: bool
    """Whether it looks at the ports on the way to a worker."""

    def choose(self, workers: Sequence[WorkerView]) -> int:
        """The index of a decode worker. `workers` is not empty."""
        ...


class DecodeRoundRobin:
    """Worker after worker."""

    ports = False

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, workers: Sequence[WorkerView]) -> int:
        chosen = self._turn % len(workers)
        self._turn += 1
        return chosen


class DecodeLeastLoaded:
    """The worker with the fewest prompt tokens on their way to it; the first of equals."""

    ports = False

    def choose(self, workers: Sequence[WorkerView]) -> int:
        return min(range(len(workers)), key=lambda i: (workers[i].tokens, i))


class DecodeNetworkAware:
    """The worker on the way to which the busiest port has least S3 still to send.

    All ways begin at the same NIC. Where that is the busiest port of several of them, the busiest of
    their others decides, and so on; then the tokens, then the order. Ports are those of servers and
    switches: decode workers behind one NIC share what is on its way to any of them.
    """

    ports = True

    def choose(self, workers: Sequence[WorkerView]) -> int:
        return min(range(len(workers)), key=lambda i: (workers[i].ports_s, workers[i].tokens, i))


DECODE_CHOICES: dict[str, Callable[[ServingOptions], DecodeChoice]] = {
    "round-robin": lambda options: DecodeRoundRobin(),
    "least-loaded": lambda options: DecodeLeastLoaded(),
    "network-aware": lambda options: DecodeNetworkAware(),
}


def make_decode_choice(options: ServingOptions) -> DecodeChoice:
    """The decode choice called `options.decode_choice`. Raises `ValueError` naming the known ones."""
    if options.decode_choice not in DECODE_CHOICES:
        known = ", ".join(DECODE_CHOICES)
        raise ValueError(f"unknown decode choice {options.decode_choice!r} (known: {known})")
    return DECODE_CHOICES[options.decode_choice](options)
