"""Which of its equal-cost paths a connection takes: the interface of path choices, and the built-in ones.

Other packages add choices under the entry point group `mfs.path_choices`. An entry point has a name, and a
class or function that makes a `PathChoice` from the seed of the run.
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
"""Seconds of work that a port has left: the bytes that flows have still to send over it, over its rate."""


class PathChoiceError(ValueError):
    """There is no such path choice, or one of another package does not load."""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """What a path is chosen for: one flow on a lane, or what a share of a collective sends to one peer.

    The emulated fabric hashes the same `key`, the name of its TCP connection: `S3.2-9.0#0` for lane 0 of S3
    from rank 2 to rank 9, and `p0.ep0:3-h2` for all that rank 3 sends to server h2 in group `p0.ep0`.
    `src_ip` and `dst_ip` are those of the servers (`testbed.topology.server_ip`).
    """

    src_ip: str
    dst_ip: str
    key: str
    flow: str
    stage: Stage
    size_bytes: int


class PathChoice(Protocol):
    """Chooses a path when a flow is submitted. May keep state, but has to be deterministic."""

    def choose(self, paths: Sequence[PortPath], connection: Connection, busy: Busy) -> int:
        """The index of the path for `connection`. `paths` is not empty."""
        ...


class Hash:
    """ECMP: a hash of addresses, key and seed, so every flow of a connection takes the same path.

    The emulated fabric hashes in the same way (docs/decisions/0003-ecmp-key.md).
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
    """The path whose busiest port has the least to do. In a tie, the next busiest ports decide, and so on.

    So ports that all paths share do not matter. If all ports tie, the first path from the hashed one on
    wins. This choice sees every queue of the network at once: an upper bound for what load balancing can
    know.
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
    """All names that `make_path_choice` takes: built-in ones and those of installed packages, sorted."""
    return sorted({*PATH_CHOICES, *_installed()})


def make_path_choice(name: str, seed: int) -> PathChoice:
    """The path choice called `name`, for a run with this `seed`.

    Raises `PathChoiceError` for an unknown name, and for a choice of another package that does not load.
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
    except Exception as error:  # whatever goes wrong in the other package, name its choice
        raise PathChoiceError(f"path choice {name!r} ({point.value}) does not load: {error}") from error
    if not callable(getattr(choice, "choose", None)):
        raise PathChoiceError(f"path choice {name!r}: what {point.value} makes has no method choose")
    return choice


def _installed() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
