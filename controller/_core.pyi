"""The compiled core of the controller. See `controller.ports` and `controller.urgency`."""

from collections.abc import Mapping

from controller.flow import Flow, PortId
from controller.view import ActiveBatch

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
