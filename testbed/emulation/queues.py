"""The queue tree of a port: eight levels at line rate, built and then read back from the kernel.

The tree is HTB with one parent at line rate and a leaf per level. The `prio` of a leaf decides which leaf
borrows first, which makes the levels strict. Its small guaranteed rate keeps the TCP connections of a
starved level alive, so that a promotion takes effect within milliseconds, not after a retransmission
timeout. Levels with weights have one `prio`, and their parts of the line as guaranteed rates. The port
itself maps DSCP to leaf, so the tree works below both datapaths of OVS, the userspace one and the kernel's.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from controller.flow import Level
from controller.openflow import dscp_of

GUARANTEE = 0.02
"""Guaranteed share of the line rate of each level.

A starved level sends one packet per `MTU / (GUARANTEE * rate)`, which is 34 ms at 50 Mb/s. A promotion
takes effect with the first acknowledgement after it (docs/decisions/0002-levels-as-dscp.md has the runs).
"""

UNUSED = 1e-3
"""Guaranteed share of a level that gets no flows, because it has no weight and others have."""

LEAST_PART = 0.009
"""The smallest part of a line by weight: less would keep TCP waiting for its timers (`GUARANTEE`)."""

_MOST_QUANTUM = 40
"""Packets that a level may borrow in its turn, at most: the kernel warns of more than 200,000 bytes."""

BURST_PACKETS = 2

PACKETS = 3000
"""Length of each leaf queue. It holds all that capped TCP windows have in flight, so nothing is dropped."""

_ADD_CLASS = "class add "
_HEADER_BYTES = 14  # Ethernet header, counted by HTB
_ROUNDING = 0.002  # tc prints rates in three or more digits

_CLASS = re.compile(
    r"class htb 1:(?P<minor>[0-9a-f]+) (?:parent 1:1|root) .*?"
    r"(?:prio (?P<prio>\d+) )?rate (?P<rate>[\d.]+)(?P<rate_unit>[KMG]?)bit"
    r" ceil (?P<ceil>[\d.]+)(?P<ceil_unit>[KMG]?)bit"
)
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}


class QueueTree(msgspec.Struct, frozen=True, kw_only=True):
    """The queues of one device. `line_bps` is in bits/s on the wire, `mtu` in bytes.

    With `weights`, these levels share the line by weight, and only these, CONTROL and SCAVENGER are in use.
    An idle line lets `burst_packets` pass at once, and one more.
    """

    device: str
    line_bps: float
    mtu: int
    burst_packets: int = BURST_PACKETS
    weights: Mapping[Level, float] = {}

    def guarantee_bps(self, level: Level) -> float:
        """The rate that `level` has whatever the others send."""
        if not self.weights or level in (Level.CONTROL, Level.SCAVENGER):
            return self.line_bps * GUARANTEE
        if level not in self.weights:
            return 8.0 * round(self.line_bps * UNUSED / 8)  # the kernel counts whole bytes
        unused = len(Level) - len(self.weights) - 2
        shared = self.line_bps * (1 - 2 * GUARANTEE - unused * UNUSED)
        return shared * part_of(level, self.weights)

    def prio(self, level: Level) -> int:
        """Which leaves borrow what is left first: the smaller number. Equal leaves take turns."""
        return int(min(self.weights)) if level in self.weights else int(level)

    def quantum(self, level: Level) -> int:
        """Bytes that a leaf borrows in its turn."""
        packets = self.weights[level] / min(self.weights.values()) if level in self.weights else 1.0
        return round(min(packets, _MOST_QUANTUM) * (self.mtu + _HEADER_BYTES))


def part_of(level: Level, weights: Mapping[Level, float]) -> float:
    """The part of `level` in what all levels with weights share."""
    return weights[level] / sum(weights.values())


class QueueMismatch(RuntimeError):
    """The kernel has other queues than asked for. The message lists every difference."""


def set_up(trees: Iterable[QueueTree]) -> None:
    """Build all trees with one `tc` process. Raises `RuntimeError` with the message of tc."""
    _tc_batch([line for tree in trees for line in _commands(tree)])


def change_rates(trees: Iterable[QueueTree]) -> None:
    """Give the queues of `trees`, which exist, the rates that they have there. What waits in them stays.

    Raises as `set_up`.
    """
    changes = [line for tree in trees for line in _commands(tree) if line.startswith(_ADD_CLASS)]
    _tc_batch([line.replace(_ADD_CLASS, "class change ", 1) for line in changes])


def _commands(tree: QueueTree) -> list[str]:
    packet = tree.mtu + _HEADER_BYTES
    # What a line may catch up with after it was idle. Messages on the wire are tens of kilobytes, so with a
    # longer burst they would be visibly faster than the line.
    burst = tree.burst_packets * packet
    dev = f"dev {tree.device}"
    line = round(tree.line_bps)
    commands = [
        f"qdisc add {dev} root handle 1: htb default {_minor(Level.CONTROL)}",
        f"{_ADD_CLASS}{dev} parent 1: classid 1:1 htb rate {line}bit ceil {line}bit"
        f" burst {burst} cburst {burst} quantum {packet}",
    ]
    for level in Level:
        minor = _minor(level)
        commands += [
            f"{_ADD_CLASS}{dev} parent 1:1 classid 1:{minor} htb rate {round(tree.guarantee_bps(level))}bit"
            f" ceil {line}bit prio {tree.prio(level)} burst {packet} cburst {burst}"
            f" quantum {tree.quantum(level)}",
            f"qdisc add {dev} parent 1:{minor} handle {minor}: pfifo limit {PACKETS}",
            f"filter add {dev} parent 1: protocol ip prio 1 u32"
            f" match ip tos {dscp_of(level) << 2:#04x} 0xfc flowid 1:{minor}",
        ]
    return commands


def _minor(level: Level) -> str:
    return f"{0x10 + level:x}"


def read_back(trees: Sequence[QueueTree]) -> dict[str, list[dict[str, str | int | float]]]:
    """Return what the kernel has, by device: a row for the root class, then a row per level.

    Raises `QueueMismatch` if that is not what `trees` ask for.
    """
    faults: list[str] = []
    found: dict[str, list[dict[str, str | int | float]]] = {}
    for tree in trees:
        rows = _read_device(tree.device)
        found[tree.device] = rows
        faults += _compare(tree, rows)
    if faults:
        raise QueueMismatch("queues are not as asked for:\n  " + "\n  ".join(faults))
    return found


def _read_device(device: str) -> list[dict[str, str | int | float]]:
    classes = _tc("class", "show", "dev", device)
    qdiscs = {q["handle"]: q for q in json.loads(_tc("-j", "qdisc", "show", "dev", device))}
    filters = json.loads(_tc("-j", "filter", "show", "dev", device))
    dscp: dict[str, int] = {}
    others = 0
    for entry in filters:
        options = entry.get("options", {})
        minor = options.get("flowid", "").removeprefix("1:")
        match_ = options.get("match", {})
        if minor and minor not in dscp and match_.get("mask") == "fc0000":
            dscp[minor] = int(match_["value"], 16) >> 18
        elif minor or entry.get("kind") not in (None, "u32"):
            others += 1
    rows: list[dict[str, str | int | float]] = []
    for match in _CLASS.finditer(classes):
        minor = match["minor"]
        leaf = qdiscs.get(f"{minor}:", {})
        rows.append(
            {
                "class": f"1:{minor}",
                "prio": int(match["prio"]) if match["prio"] else -1,
                "rate_bps": float(match["rate"]) * _UNITS[match["rate_unit"]],
                "ceil_bps": float(match["ceil"]) * _UNITS[match["ceil_unit"]],
                "leaf": leaf.get("kind", ""),
                "limit_packets": leaf.get("options", {}).get("limit", -1),
                "dscp": dscp.get(minor, -1),
            }
        )
    for row in rows:
        if row["class"] == "1:1":
            row["default_class"] = str(qdiscs.get("1:", {}).get("options", {}).get("default", ""))
            row["other_filters"] = others
    return sorted(rows, key=lambda row: str(row["class"]))


def _compare(tree: QueueTree, rows: list[dict[str, str | int | float]]) -> list[str]:
    wanted: dict[str, dict[str, str | int | float]] = {
        "1:1": {
            "rate_bps": tree.line_bps,
            "ceil_bps": tree.line_bps,
            "default_class": f"0x{_minor(Level.CONTROL)}",
            "other_filters": 0,
        }
    }
    for level in Level:
        wanted[f"1:{_minor(level)}"] = {
            "prio": tree.prio(level),
            "rate_bps": tree.guarantee_bps(level),
            "ceil_bps": tree.line_bps,
            "leaf": "pfifo",
            "limit_packets": PACKETS,
            "dscp": dscp_of(level),
        }
    faults = []
    have = {str(row["class"]): row for row in rows}
    for name in sorted(wanted.keys() | have.keys()):
        if name not in have or name not in wanted:
            faults.append(f"{tree.device} {name}: {'missing' if name in wanted else 'unexpected'}")
            continue
        for key, value in wanted[name].items():
            real = have[name][key]
            if isinstance(value, float):
                same = abs(float(real) - value) <= _ROUNDING * value + 1
            else:
                same = real == value
            if not same:
                faults.append(f"{tree.device} {name}: {key} is {real}, asked for {value}")
    return faults


class PortCounters(msgspec.Struct, frozen=True, kw_only=True):
    """Counters per level: bytes and packets sent so far, bytes waiting now, packets dropped so far."""

    sent_bytes: tuple[int, ...]
    backlog_bytes: tuple[int, ...]
    drops: tuple[int, ...]
    packets: tuple[int, ...]


class Sampler:
    """Reads the counters of many devices with one `tc` process per sample."""

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = tuple(devices)

    def sample(self) -> dict[str, PortCounters]:
        """Return the counters of all devices now."""
        return self._read(self._devices)

    def sample_one(self, device: str) -> PortCounters:
        """Return the counters of one device. This is fast, so the moment of the reading is known well."""
        return self._read((device,))[device]

    @staticmethod
    def _read(devices: Sequence[str]) -> dict[str, PortCounters]:
        output = subprocess.run(
            ["tc", "-s", "-j", "-batch", "-"],
            input="".join(f"qdisc show dev {device}\n" for device in devices),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        arrays = [json.loads(line) for line in output.splitlines() if line.strip()]
        return {device: _counters(array) for device, array in zip(devices, arrays, strict=True)}


def _counters(qdiscs: list[dict[str, object]]) -> PortCounters:
    leaves = {str(q["handle"]): q for q in qdiscs}
    rows = [leaves[f"{_minor(level)}:"] for level in Level]

    def column(key: str) -> tuple[int, ...]:
        return tuple(int(str(row[key])) for row in rows)

    return PortCounters(
        sent_bytes=column("bytes"),
        backlog_bytes=column("backlog"),
        drops=column("drops"),
        packets=column("packets"),
    )


def _tc(*arguments: str) -> str:
    done = subprocess.run(["tc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"tc {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _tc_batch(lines: list[str]) -> None:
    done = subprocess.run(
        ["tc", "-batch", "-"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"tc refused the queues: {done.stderr.strip()}")
