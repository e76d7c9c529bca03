"""Which decode worker gets the KV of a request: choices by name, with the registry at the end."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from controller.units import NS_PER_S
from testbed.job import ServingOptions
from testbed.serving.turns import Turns


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A decode worker as seen for one request.

    `tokens` are the prompt tokens of requests that have been assigned to it and have no first token yet. For
    a choice that is `live`, `ports_s` counts what flows have left on a port now, instead of the S3 to come.
    `ports_s` has, for each port from the request's replica to the worker, the seconds that the port
    takes at line rate for the S3 still to come, this request's included. The longest comes first. It is
    empty if no port lies between them, and for a choice that does not ask for `ports`.
    """

    tokens: int
    ports_s: tuple[float, ...] = ()


class DecodeChoice(Protocol):
    ports: bool
    """Whether the choice looks at the ports on the path to a worker."""

    live: bool
    """Whether it has to know what flows have left on these ports at this moment."""

    def choose(self, workers: Sequence[WorkerView]) -> int:
        """The index of a decode worker. `workers` is not empty."""
        ...


class DecodeRoundRobin:
    """Each worker in turn."""

    ports = False
    live = False

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, workers: Sequence[WorkerView]) -> int:
        chosen = self._turn % len(workers)
        self._turn += 1
        return chosen


class DecodeLeastLoaded:
    """The worker with the fewest prompt tokens that wait for their first token.

    A tie goes to the worker that was taken longest ago.
    """

    ports = False
    live = False

    def __init__(self) -> None:
        self._turns: Turns[int] = Turns()

    def choose(self, workers: Sequence[WorkerView]) -> int:
        return self._turns.take_least(range(len(workers)), lambda i: workers[i].tokens)


class DecodeNetworkAware:
    """The worker whose path has the least S3 still to come on its busiest port.

    All paths begin at the same NICs, so several may have the same busiest port. The next busiest ports then
    decide, then the tokens, then who was taken longest ago. Ports are those of servers and switches, so
    decode workers behind one NIC share the traffic to any of them. Times are compared in whole ns, so that
    rounding does not decide.
    """

    ports = True
    live = False

    def __init__(self) -> None:
        self._turns: Turns[int] = Turns()

    def choose(self, workers: Sequence[WorkerView]) -> int:
        def cost(i: int) -> tuple[tuple[int, ...], int]:
            return tuple(round(port_s * NS_PER_S) for port_s in workers[i].ports_s), workers[i].tokens

        return self._turns.take_least(range(len(workers)), cost)


class DecodeNetKv(DecodeNetworkAware):
    """The worker to which the request's KV would get soonest behind what flows have left on the ports now.

    An oracle of the network: it knows the bytes that the flows of all stages have left, but not the S3 that
    will be posted. This is our reading of NetKV (arXiv 2606.03910), whose oracle has estimates of the cost of
    a transfer. Ties are settled as by `network-aware`.
    """

    live = True


DECODE_CHOICES: dict[str, Callable[[ServingOptions], DecodeChoice]] = {
    "round-robin": lambda options: DecodeRoundRobin(),
    "least-loaded": lambda options: DecodeLeastLoaded(),
    "network-aware": lambda options: DecodeNetworkAware(),
    "netkv": lambda options: DecodeNetKv(),
}


def reads_ports_now(name: str) -> bool:
    """Whether the decode choice `name` has to know what flows have left on ports at a moment."""
    return name == "netkv"


def make_decode_choice(options: ServingOptions) -> DecodeChoice:
    """The decode choice called `options.decode_choice`.

    Raises `ValueError` for an unknown name; the message lists the known ones.
    """
    if options.decode_choice not in DECODE_CHOICES:
        known = ", ".join(DECODE_CHOICES)
        raise ValueError(f"unknown decode choice {options.decode_choice!r} (known: {known})")
    return DECODE_CHOICES[options.decode_choice](options)
