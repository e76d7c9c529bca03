"""A network as a file describes it."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from experiments.errors import UserError
from testbed.topology import Wire


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """The servers and switches of a file.

    `nics[i]` are the NICs of server i, and `between[a, b]` is the wire from switch a to switch b. Files of
    some formats say what is inside a server: then `inside` is true, and `gpus` and `nvlink_bps` are as in
    `ServerShape`. `notes` say what in the file has no effect.
    """

    nics: tuple[tuple[Wire, ...], ...]
    switches: tuple[str, ...]
    between: dict[tuple[str, str], Wire]
    inside: bool = False
    gpus: int | None = None
    nvlink_bps: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def nics_per_server(self) -> int:
        return len(self.nics[0])


PARALLEL = "parallel links between two switches count as one link of their total rate"


def check_alike(nics: Sequence[Sequence[Wire]], path: Path) -> None:
    """Raise `UserError` unless all servers have equally many NICs, and at least one."""
    for number, of_server in enumerate(nics, start=1):
        if not of_server:
            raise UserError(f"{path}: server h{number} is wired to no switch")
        if len(of_server) != len(nics[0]):
            raise UserError(
                f"{path}: h{number} has {len(of_server)} links to switches and h1 has {len(nics[0])}; "
                "servers with different numbers of NICs are not supported"
            )


def add_wire(between: dict[tuple[str, str], Wire], a: str, b: str, bps: int, latency_ns: int = 0) -> bool:
    """Wire switch `a` to `b` at `bps` each way. Parallel wires add up; returns whether there was one.

    The latency of parallel wires is that of the slowest.
    """
    pair = (b, a) if (b, a) in between else (a, b)
    before = between.get(pair)
    total = bps + (0 if before is None else before.up_bps)
    latency_ns = max(latency_ns, 0 if before is None else before.latency_ns)
    between[pair] = Wire(switch=pair[1], up_bps=total, down_bps=total, latency_ns=latency_ns)
    return before is not None


_BITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_RATE = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)([kKMGT]?)(bps|b/s|Bps|B/s)")


def bits_per_s(text: str) -> int:
    """Read a rate such as `400Gbps`. Raises `ValueError` for other text, and for a rate of 0."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a rate such as 400Gbps")
    bps = round(float(found[1]) * _BITS[found[2].upper()] * (8 if found[3].startswith("B") else 1))
    if bps < 1:
        raise ValueError(f"{text!r} is not above 0")
    return bps


_NS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}
_TIME = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)(s|ms|us|ns)")
_MOST_NS = 10**9


def whole_ns(text: str) -> int:
    """Read a time such as `0.0005ms`. Raises `ValueError` for other text, and for more than a second."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a time such as 0.0005ms")
    ns = round(float(found[1]) * _NS[found[2]])
    if ns > _MOST_NS:
        raise ValueError(f"{text!r} is more than a second")
    return ns
