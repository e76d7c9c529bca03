"""What a policy sees: the active flows, their batches and the ports. To be read, not changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.flow import Batch, Flow, Level
from controller.ports import PortLoads
from controller.urgency import red


@dataclass(slots=True, eq=False)
class ActiveBatch:
    """A batch that computes or still has flows. `layer` is the one it is at; `layers` means done."""

    batch: Batch
    layer: int = 0
    flows: dict[str, "ActiveFlow"] = field(default_factory=dict)
    red_ns: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.red_ns = red(self.batch.deadlines_ns) if self.batch.deadlines_ns else None

    @property
    def compute_over(self) -> bool:
        return self.layer >= self.batch.layers


@dataclass(slots=True, eq=False)
class ActiveFlow:
    """A submitted flow that is not complete.

    `batch` is None for a flow that belongs to none, or whose batch has departed. `level` means
    nothing before the policy's first verdict. `bytes_left` is as fresh as the last progress report.
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
        """No layer boundary will come for this flow: no batch, or its compute is over."""
        return self.batch is None or self.batch.compute_over


@dataclass(frozen=True, slots=True)
class View:
    """All a policy may look at. Mappings are in order of submission; do not change what they hold.

    `unpaced` are the flows for which no layer boundary will come. `exact` says that the fabric
    keeps an exact order inside a level and can pace a flow; otherwise a policy has levels only.
    """

    flows: Mapping[str, ActiveFlow]
    batches: Mapping[str, ActiveBatch]
    unpaced: Mapping[str, ActiveFlow]
    ports: PortLoads
    exact: bool = False
