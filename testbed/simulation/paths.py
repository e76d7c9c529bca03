"""Which of its equal-cost paths a connection takes: the hook, and the choices that come with it.

A choice of another package is found by the entry point group `mfs.path_choices`: a name, and a class
or function that makes a `PathChoice` from the seed of the run.
"""

import difflib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from controller.ecmp import pick
from controller.flow import PortId, Stage
from testbed.topology import PortPath

ENTRY_POINT_GROUP = "mfs.path_choices"

Busy = Callable[[PortId], float]
"""Seconds of work a port still has: the bytes that flows under way have left for it, over its rate."""


class PathChoiceError(ValueError):
    """There is no such choice, or another package's does not load."""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """What a path is chosen for: one flow on a lane, or what a share of a collective sends to one peer.

    `key` is the name of the TCP connection that carries it in the emulation, and what is hashed there:
    `S3.2-9.0#0` for lane 0 of S3 from rank 2 to rank 9, `p0.ep0:3-h2` for all that rank 3 sends in group
    `p0.ep0` to server h2. `src_ip` and `dst_ip` are the servers' (`testbed.topology.server_ip`).
    """

    src_ip: str
    dst_ip: str
    key: str
    flow: str
    stage: Stage
    size_bytes: int


class PathChoice(Protocol):
    """Asked about a flow when it is submitted. May keep what it learns, but has to be deterministic."""

    def choose(self, paths: Sequence[PortPath], connection: Connection, busy: Busy) -> int:
        """The index in `paths`, of which there is at least one, for `connection`."""
        ...


class Hash:
    """ECMP: a hash of addresses, key and seed, so every flow of a connection takes the same path.

    The draw is the emulated fabric's (docs/decisions/0003-ecmp-key.md).
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def choose(self, paths: Sequence[PortPath], connection: Connection, busy: Busy) -> int:
        return pick(
            range(len(paths)),
            seed=self._seed,
            src_ip=connection.src_ip,
            dst_ip=connection.dst_ip,
            key=connection.key,
        )


class LeastLoaded:
    """The path whose busiest port has the least to do; of equals the one whose next busiest has, and so on.

    So the ports that all paths share do not decide. Of paths that are alike, the first after the hashed
    one. Sees every queue of the network at once: an upper bound for what load balancing can know.
    """

    def __init__(self, seed: int) -> None:
        self._hash = Hash(seed)

    def choose(self, paths: Sequence[PortPath], connection: Connection, busy: Busy) -> int:
        count = len(paths)
        first = self._hash.choose(paths, connection, busy)
        known: dict[PortId, float] = {}

        def seconds(port: PortId) -> float:
            if port not in known:
                known[port] = busy(port)
            return known[port]

        def load(step: int) -> list[float]:
            return sorted(map(seconds, paths[(first + step) % count]), reverse=True)

        return (first + min(range(count), key=load)) % count


PATH_CHOICES: Mapping[str, Callable[[int], PathChoice]] = {"hash": Hash, "least-loaded": LeastLoaded}


def path_choice_names() -> list[str]:
    """All names `make_path_choice` takes: ours, and those of installed packages, in alphabetical order."""
    return sorted({*PATH_CHOICES, *_installed()})


def make_path_choice(name: str, seed: int) -> PathChoice:
    """The choice called `name` for a run of `seed`.

    Raises `PathChoiceError` for an unknown name, and for one of another package that cannot be made.
    """
    if name in PATH_CHOICES:
        return PATH_CHOICES[name](seed)
    points = _installed()
    if name not in points:
        names = path_choice_names()
        (near,) = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise PathChoiceError(
            f"there is no path choice {name!r}; did you mean {near!r}? (choices: {', '.join(names)})"
        )
    point = points[name]
    try:
        choice: PathChoice = point.load()(seed)
    except Exception as error:  # whatever the other package does wrong, say whose choice it is
        raise PathChoiceError(f"path choice {name!r} ({point.value}) does not load: {error}") from error
    if not callable(getattr(choice, "choose", None)):
        raise PathChoiceError(f"path choice {name!r}: what {point.value} makes has no method choose")
    return choice


def _installed() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
