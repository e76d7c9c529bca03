"""The compiled core of the controller. See `controller.lanes`, `controller.ports`, `controller.urgency`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from controller.flow import Assignment, Decision, Flow, Level, PortId
from controller.view import ActiveBatch

_L = TypeVar("_L", bound=Lane[Any])
_C = TypeVar("_C", bound=Claim[Any])

SOURCES: str
"""What `controller.compiled.digest_of` said of the C++ files when this was built."""

RHO_CAP: float
BLOCKS_NOW: int

def mlu(due_bytes: int, time_left_ns: int, bps: int, rho: float = 0.0) -> float: ...

class NumberedPortLoads:
    """The C++ class `mfs::PortLoads`, which the cores of other modules use. It has no methods for Python."""

class NamedPortLoads(NumberedPortLoads):
    """The loads of ports. A port that it does not know raises `KeyError`, a sum of 2**63 `OverflowError`."""

    def __init__(self, bps: dict[PortId, int], rho_window_ns: int) -> None: ...
    def __contains__(self, port: PortId) -> bool: ...
    def takes(self, load: Mapping[PortId, int]) -> bool:
        """Whether all ports of `load` are known, and no bytes are below 0."""

    def bps(self, port: PortId) -> int: ...
    def due(self, port: PortId, deadline_ns: int) -> tuple[int, int]:
        """Bytes and flows, as of `controller.ports.Due`."""

    def due_bytes(self, port: PortId, deadline_ns: int) -> int:
        """The bytes of `due` alone."""

    def rho(self, port: PortId, now_ns: int) -> float:
        """The share of the port that S1 and S2 take, at most `RHO_CAP`.

        It is the bytes that they moved, forgotten exponentially over the window, plus the bytes that are
        submitted and have yet to move, divided by the bytes that the port can carry in one window.
        """

    def early_layers(self, port: PortId) -> Mapping[str, Mapping[int, int]]:
        """Numbers of active S1 and S2 flows: batch -> target layer (`BLOCKS_NOW` for S2) -> how many.

        Batches are in the order in which they came to the port. Later events do not change what is returned.
        """

    def first_early(
        self, load: Mapping[PortId, int], batches: dict[str, ActiveBatch], layers_ahead: int
    ) -> str | None:
        """The first of `batches`, port by port, with an active S1 or S2 flow of this RLI. That of S2 is 0."""

    def highest_mlu(
        self, now_ns: int, flow: Flow, rho: float | None, own_bytes: int | None
    ) -> tuple[float, PortId, int, int, float]:
        """The highest MLU of `flow`, and of what it was computed: port, bytes, flows and rho.

        The flow has a deadline and crosses a port; of equal ports it is the first. `rho` is taken for all
        ports; None: it is measured. With `own_bytes`, only this much of the flow itself is due; None: all
        S3 that is due by its deadline.
        """

    def submitted(self, flow: Flow) -> None:
        """`flow` waits to be sent."""

    def moved(self, now_ns: int, flow: Flow, *, before_bytes: int, after_bytes: int) -> None:
        """`flow` had `before_bytes` left and now has `after_bytes`."""

    def finished(self, now_ns: int, flow: Flow, *, before_bytes: int) -> None:
        """The last `before_bytes` of `flow` have moved."""

    def put_aside(self, flow: Flow, bytes_left: int) -> None:
        """`flow` yields to all others from now on: if it is S3, its bytes no longer count as due."""

    def take_back(self, flow: Flow, bytes_left: int) -> None:
        """`flow` no longer yields: if it is S3, its bytes count as due again."""

class LaneError(ValueError):
    """A flow is submitted twice, completes without a lane, or takes a lane that is in use."""

class LevelTrail:
    """The first and the last level of a flow, and how often it was promoted in between."""

    def __init__(self) -> None: ...
    @property
    def level_first(self) -> Level | None: ...
    @property
    def level_last(self) -> Level | None: ...
    @property
    def promotions(self) -> int: ...
    def moved_to(self, level: Level) -> None:
        """The flow is at `level` now. Its first level is not a promotion."""

class Lane(Generic[_C]):
    """Carries one flow at a time. `level` is the level in force on it, `ports` are the ports of its path.

    A `spare` lane is made for one flow, beyond the lanes of the pool, and is gone when that flow is
    complete.
    """

    level: Level

    def __init__(self, name: str, ports: tuple[PortId, ...], *, spare: bool = False) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def ports(self) -> tuple[PortId, ...]: ...
    @property
    def spare(self) -> bool: ...
    @property
    def claim(self) -> _C | None:
        """The flow that has the lane."""

class Claim(LevelTrail, Generic[_L]):
    """A flow that waits for a lane or has one, and the levels it was at. It is submitted once."""

    def __init__(self, id: str) -> None: ...
    @property
    def id(self) -> str: ...
    @property
    def pool(self) -> LanePool[_L, Any] | None:
        """The pool that the flow was submitted to; None if it took its lane at once."""

    @property
    def lane(self) -> _L | None:
        """The lane that the flow got. It stays when the flow is complete."""

    @property
    def wanted(self) -> Level:
        """The level that the flow is served at.

        It is the more urgent of two: the level of the scheduler's last assignment, and the level that a
        waiting flow has lent to this one.
        """

class LanePool(Generic[_L, _C]):
    """The lanes from one rank to another for one stage, and the flows that wait for one of them.

    With `spare` no flow ever waits. When all lanes are taken, `spare(i)` makes another lane over the path
    of lane `i`; the lanes take turns.
    """

    def __init__(self, lanes: Iterable[_L] = (), *, spare: Callable[[int], _L] | None = None) -> None: ...
    @property
    def lanes(self) -> tuple[_L, ...]: ...
    @property
    def waiting(self) -> list[_C]:
        """The flows that wait, in the order of submission."""

    def add(self, lane: _L) -> None:
        """Raises `LaneError` if a pool or a flow has the lane."""

    def load(self, size_bytes: int) -> dict[PortId, int]:
        """Bytes that a flow of `size_bytes` will put on each port, as far as known before it has a lane.

        A port that every lane crosses gets all bytes; a port that n of m lanes cross gets n/m of them,
        rounded down. Consecutive calls with one size return the same dictionary. Do not change it.
        """

    def fill(self) -> list[_C]:
        """Give free lanes to the flows that wait, the most urgent first. Returns the flows that got one.

        A lane that is at the flow's level already is preferred, because no rule has to change for it.
        """

class Claims(Generic[_C]):
    """Every flow that waits for a lane or has one, and its level.

    `changed` is called with each change of a level. `obey` and `lend` return the flows to move: those on a
    lane whose level, order or rate may have changed, in order. A flow can be among them twice.
    """

    def __init__(self, changed: Callable[[Decision], None]) -> None: ...
    @property
    def submitted(self) -> int:
        """How many flows have been submitted."""

    def submit(self, claim: _C, pool: LanePool[Any, _C]) -> None:
        """The flow waits for a lane of `pool`. Raises `LaneError` if a flow of its id is active."""

    def submit_on(self, claim: _C, lane: Lane[_C]) -> None:
        """The flow takes `lane`, a rank's side of a process group, which is in no pool.

        Raises `LaneError` if a flow of its id is active, or if another flow or a pool has the lane.
        """

    def obey(self, assignments: Iterable[Assignment]) -> list[_C]:
        """Take in the assignments of one event, and lend levels where flows wait."""

    def lend(self, time_ns: int, pool: LanePool[Any, _C]) -> list[_C]:
        """Lend the levels of the flows that wait for a lane of `pool` to flows that have one.

        These keep the level until they are complete.
        """

    def complete(self, flow: str) -> _C:
        """The flow has arrived, and its lane is free. Raises `LaneError` if the flow has no lane."""

    def on_a_lane(self, flow: str) -> _C:
        """The claim of an active flow. Raises `LaneError` if the flow has no lane."""

def loans(held: Sequence[Level], waiting: Sequence[Level]) -> list[tuple[int, int]]:
    """Which lane each waiting flow lends its level to, as pairs of a lane's and a flow's index.

    `held` are the levels of a pool's lanes, all taken, in the order in which they were taken. `waiting` are
    the levels of the flows that wait, the most urgent first, at most one per lane. The i-th waiting flow
    needs i lanes that are at least as urgent as it is. If one is missing, the flow lends its level to the
    lane that was taken first among the less urgent ones.
    """
