"""What a policy sees: the active flows, their batches and the ports. It reads them and changes nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from controller.flow import Batch, Flow, Level, PortId
from controller.ports import PortLoads, left_on
from controller.urgency import red


@dataclass(slots=True, eq=False)
class ActiveBatch:
    """A batch that still computes or has active flows.

    `layer` is the layer it is at, or `batch.layers` when its compute is over. `red_ns` is None if it has
    no requests.
    """

    batch: Batch
    layer: int = 0
    flows: dict[str, "ActiveFlow"] = field(default_factory=dict)
    red_ns: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.red_ns = red(self.batch.deadlines_ns) if self.batch.deadlines_ns else None

    @property
    def compute_over(self) -> bool:
        return self.layer >= self.batch.layers


class ActiveFlow(msgspec.Struct, eq=False):
    """A submitted flow that is not complete.

    `batch` is None if the flow has none, or if its batch departed before the flow was submitted. `level`,
    `order` and `rate_bps` are from the policy's last verdict and mean nothing before the first; a flow of
    a pruned request is in SCAVENGER all the same. `bytes_left` is as of the last progress report.
    """

    flow: Flow
    submitted_ns: int
    bytes_left: int
    batch: ActiveBatch | None
    level: Level = Level.SCAVENGER
    order: float = 0.0
    rate_bps: int | None = None

    @property
    def unpaced(self) -> bool:
        """Whether no layer boundary will come: the flow has no batch, or the batch's compute is over."""
        return self.batch is None or self.batch.compute_over


@dataclass(slots=True, eq=False)
class FlowGroup:
    """Active flows on which a policy gives one verdict, by their ids. The policy keeps them."""

    name: str
    flows: dict[str, ActiveFlow] = field(default_factory=dict)

    def left_on_ports(self) -> Mapping[PortId, int]:
        """The bytes that the flows have left on each port, as of their last progress reports."""
        left_bytes: dict[PortId, int] = {}
        for active in self.flows.values():
            for port in active.flow.load:
                on_port = left_on(active.flow, port, active.bytes_left)
                left_bytes[port] = left_bytes.get(port, 0) + on_port
        return left_bytes


@dataclass(frozen=True, slots=True)
class View:
    """All that a policy may look at. Do not change anything in it.

    `flows` are in order of submission, `batches` in order of arrival. `unpaced` are the flows for which
    no layer boundary will come. `exact` says that the fabric keeps an exact order inside a level and can
    pace a flow; otherwise a policy has levels only. `levels` says that some ports know levels only, so that
    they have to tell the urgent flows from the others; with an exact order on all ports, an order is enough.
    Both are true where hosts keep an exact order and switches do not. `left_on_ports` says what the flows of
    a group have left on each port: at this moment if `left_is_current`, or else as of their last progress
    reports.
    """

    flows: Mapping[str, ActiveFlow]
    batches: Mapping[str, ActiveBatch]
    unpaced: Mapping[str, ActiveFlow]
    ports: PortLoads
    exact: bool = False
    levels: bool = True
    left_on_ports: Callable[[FlowGroup], Mapping[PortId, int]] = FlowGroup.left_on_ports
    left_is_current: bool = False
