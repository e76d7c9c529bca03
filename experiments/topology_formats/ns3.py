"""Topology files of network simulators built on HPCC's ns-3 code: astra-sim and SimAI.

Both list numbered nodes and the links between them, each as `from to rate delay error-rate`:

- astra-sim: a line with the numbers of nodes, switches and links, then the ids of the switches, then links.
  All other nodes are hosts.
- SimAI: a line with the numbers of nodes, GPUs of a server, NVSwitches, switches and links, and the type of
  GPU, then the ids of the NVSwitches and of the switches, then links. All other nodes are GPUs, and each
  run of consecutive GPUs is a server.
"""

from pathlib import Path
from typing import NamedTuple

from experiments.errors import UserError
from experiments.topology_formats.network import (
    PARALLEL,
    Network,
    add_wire,
    bits_per_s,
    check_alike,
    whole_ns,
)
from testbed.topology import Wire

_LINK_FIELDS = 5
_MOST_NODES = 1_000_000


class _Link(NamedTuple):
    line: int
    a: int
    b: int
    bps: int
    latency_ns: int


class _File:
    """The words of a file, one after the other, with the lines that they are in."""

    def __init__(self, text: str, path: Path) -> None:
        self._path = path
        self._words = [
            (word, number)
            for number, line in enumerate(text.splitlines(), start=1)
            for word in line.split("#", 1)[0].split()
        ]
        self._next = 0

    def error(self, line: int, reason: str) -> UserError:
        return UserError(f"{self._path}, line {line}: {reason}")

    def left_in_line(self) -> int:
        """The number of words that are left in the line of the next word."""
        rest = self._words[self._next :]
        return sum(line == rest[0][1] for _, line in rest[:16]) if rest else 0

    def word(self, what: str) -> tuple[str, int]:
        if self._next == len(self._words):
            raise UserError(f"{self._path}: ends before {what}")
        self._next += 1
        return self._words[self._next - 1]

    def whole(self, what: str, below: int = _MOST_NODES) -> tuple[int, int]:
        text, line = self.word(what)
        if not text.isascii() or not text.isdigit() or int(text) >= below:
            raise self.error(line, f"{text!r} is not {what} (a whole number below {below})")
        return int(text), line

    def end(self) -> None:
        if self._next < len(self._words):
            text, line = self._words[self._next]
            raise self.error(line, f"{text!r} comes after the last link")


def read_astra_sim(text: str, path: Path) -> Network:
    """Read a topology file of astra-sim's ns-3 backend. Raises `UserError`, naming the line."""
    file = _File(text, path)
    if file.left_in_line() != 3:
        raise file.error(
            1,
            f"{file.left_in_line()} values; in a file of astra-sim it has 3: nodes, switches, links",
        )
    (nodes, line), (switch_count, _), (link_count, _) = (
        file.whole(what) for what in ("the number of nodes", "the number of switches", "the number of links")
    )
    switches = [file.whole("the id of a switch", nodes)[0] for _ in range(switch_count)]
    hosts = sorted(set(range(nodes)) - set(switches))
    if len(hosts) < 2:
        raise file.error(line, f"{len(hosts)} of {nodes} nodes are hosts, at least 2 are needed")
    return _network(file, path, link_count, nodes, hosts, switches, nvswitches=[], gpus=1)


def read_simai(text: str, path: Path) -> Network:
    """Read a topology file of SimAI. Raises `UserError`, naming the line."""
    file = _File(text, path)
    fields = file.left_in_line()
    if fields not in (6, 7):
        raise file.error(
            1,
            f"{fields} values; in a file of SimAI it has 6 or 7: nodes, GPUs of a server, NVSwitches, "
            "switches, links, type of GPU",
        )
    nodes, line = file.whole("the number of nodes")
    gpus, _ = file.whole("the number of GPUs of a server")
    nvswitch_count, _ = file.whole("the number of NVSwitches")
    switch_count, _ = file.whole("the number of switches")
    link_count, _ = file.whole("the number of links")
    file.word("the type of GPU")
    for _ in range(fields - 6):
        file.word("the first line is over")
    nvswitches = [file.whole("the id of an NVSwitch", nodes)[0] for _ in range(nvswitch_count)]
    switches = [file.whole("the id of a switch", nodes)[0] for _ in range(switch_count)]
    hosts = sorted(set(range(nodes)) - set(switches) - set(nvswitches))
    if gpus < 1 or len(hosts) % gpus or len(hosts) < 2 * gpus:
        raise file.error(line, f"{len(hosts)} GPUs are not two or more servers of {gpus}")
    return _network(file, path, link_count, nodes, hosts, switches, nvswitches=nvswitches, gpus=gpus)


def _network(
    file: _File,
    path: Path,
    link_count: int,
    nodes: int,
    hosts: list[int],
    switches: list[int],
    *,
    nvswitches: list[int],
    gpus: int,
) -> Network:
    place = {host: i for i, host in enumerate(hosts)}
    names = {switch: f"s{switch}" for switch in switches}
    nics: list[list[Wire]] = [[] for _ in hosts]
    nvlink_bps = [0] * len(hosts)
    servers_of: dict[int, set[int]] = {nvswitch: set() for nvswitch in nvswitches}
    between: dict[tuple[str, str], Wire] = {}
    slow_nvlink = parallel = False
    for _ in range(link_count):
        link = _link(file, nodes)
        host, other = (link.a, link.b) if link.a in place else (link.b, link.a)
        if host in place and other in names:
            nics[place[host]].append(
                Wire(switch=names[other], up_bps=link.bps, down_bps=link.bps, latency_ns=link.latency_ns)
            )
        elif host in place and other in servers_of:
            nvlink_bps[place[host]] += link.bps
            slow_nvlink |= link.latency_ns > 0
            servers_of[other].add(place[host] // gpus)
            if len(servers_of[other]) > 1:
                raise file.error(link.line, f"NVSwitch {other} joins several servers, which is not modelled")
        elif link.a in names and link.b in names and link.a != link.b:
            parallel |= add_wire(between, names[link.a], names[link.b], link.bps, link.latency_ns)
        else:
            raise file.error(
                link.line,
                f"a link between nodes {link.a} and {link.b}: only a GPU (or host) and a switch, a GPU and "
                "an NVSwitch, and two switches can be linked",
            )
    file.end()
    _check_inside(nvlink_bps, hosts, path)
    check_alike(nics, path)
    notes = _notes(path, slow_nvlink=slow_nvlink, parallel=parallel, several=gpus > 1, nvlink=any(nvlink_bps))
    return Network(
        nics=tuple(
            tuple(wire for gpu in nics[first : first + gpus] for wire in gpu)
            for first in range(0, len(hosts), gpus)
        ),
        switches=tuple(names[switch] for switch in switches),
        between=between,
        inside=True,
        gpus=gpus,
        nvlink_bps=nvlink_bps[0] or None,
        notes=notes,
    )


def _link(file: _File, nodes: int) -> _Link:
    a, line = file.whole("a node of a link", nodes)
    if file.left_in_line() != _LINK_FIELDS - 1:
        raise file.error(line, "a link is written as: from to rate delay error-rate")
    b, _ = file.whole("a node of a link", nodes)
    rate, _ = file.word("the rate of a link")
    delay, _ = file.word("the delay of a link")
    errors, _ = file.word("the error rate of a link")
    try:
        bps, latency_ns = bits_per_s(rate), whole_ns(delay)
        lossy = float(errors) != 0
    except ValueError as error:
        raise file.error(line, str(error)) from None
    if lossy:
        raise file.error(line, f"an error rate of {errors}: links that lose packets are not modelled")
    return _Link(line, a, b, bps, latency_ns)


def _check_inside(nvlink_bps: list[int], hosts: list[int], path: Path) -> None:
    for host, bps in zip(hosts, nvlink_bps, strict=True):
        if bps != nvlink_bps[0]:
            raise UserError(
                f"{path}: GPU {host} has {bps / 1e9:g} Gb/s to NVSwitches and GPU {hosts[0]} "
                f"{nvlink_bps[0] / 1e9:g}; all GPUs must have the same rate"
            )


def _notes(path: Path, *, slow_nvlink: bool, parallel: bool, several: bool, nvlink: bool) -> tuple[str, ...]:
    notes: list[str] = []
    if slow_nvlink:
        notes.append(f"{path.name}: delays of links to NVSwitches are left out")
    if parallel:
        notes.append(f"{path.name}: {PARALLEL}")
    if several and not nvlink:
        notes.append(f"{path.name}: there is no NVSwitch, so traffic inside a server takes no time")
    return tuple(notes)
