"""The rates of NICs that differ from `topology.nic_gbps`, by the names that a scenario gives them."""

import re
from collections.abc import Hashable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

_NIC = re.compile(r"nic(\d+)")
_SERVERS = re.compile(r"h(\d+)(?:-h(\d+))?(?:\.nic(\d+))?")


def rates_of(
    gbps: float, others: Mapping[str, float], *, servers: int, nics: int
) -> tuple[list[float], dict[str, list[float]]]:
    """The rates of a usual server's NICs, and those of each server that differs, in Gb/s.

    A name in `others` is that of a NIC in all servers (`nic1`), of servers (`h3`, `h5-h8`), or of a NIC in
    these (`h3.nic1`). The later in this list wins. Raises `ValueError` for a name that means nothing here,
    and for two names of one kind that mean the same NIC.
    """
    usual = [gbps] * nics
    by_server: dict[int, tuple[str, float]] = {}
    by_nic: dict[tuple[int, int], tuple[str, float]] = {}
    for name, rate in others.items():
        everywhere = _NIC.fullmatch(name)
        if everywhere is not None:
            usual[_below(int(everywhere[1]), nics, name)] = rate
            continue
        numbers, nic = _servers(name, servers)
        for number in numbers:
            if nic is None:
                _once(by_server, number, name, rate)
            else:
                _once(by_nic, (number, _below(int(nic), nics, name)), name, rate)
    differing: dict[str, list[float]] = {}
    for number, (_, rate) in by_server.items():
        differing[f"h{number}"] = [rate] * nics
    for (number, nic_number), (_, rate) in by_nic.items():
        differing.setdefault(f"h{number}", list(usual))[nic_number] = rate
    return usual, differing


def _servers(name: str, servers: int) -> tuple[range, str | None]:
    """The numbers of the servers that a name means, and that of the NIC, if it names one."""
    found = _SERVERS.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is none of nic1, h3, h5-h8 and h3.nic1")
    first, last = int(found[1]), int(found[2] or found[1])
    if not 1 <= first <= last <= servers:
        raise ValueError(f"{name!r} are not servers of this topology (h1..h{servers})")
    return range(first, last + 1), found[3]


def _below(nic: int, nics: int, name: str) -> int:
    if nic >= nics:
        raise ValueError(f"{name!r}: a server has {nics} {'NIC' if nics == 1 else 'NICs'}, numbered from 0")
    return nic


def _once(known: dict[K, tuple[str, float]], key: K, name: str, rate: float) -> None:
    if key in known:
        raise ValueError(f"{known[key][0]!r} and {name!r} both give the rate of the same NIC")
    known[key] = name, rate
