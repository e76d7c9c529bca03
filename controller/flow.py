"""The vocabulary of scheduling: stages, levels, flows, batches, assignments.

All times are nanoseconds of *model* time, all sizes model bytes, all rates model bits per second.
A fabric that runs slower or smaller than the model (see `testbed.job.Scale`) converts at its edge.
"""

import enum
from collections.abc import Mapping
from typing import TypeVar

import msgspec

_E = TypeVar("_E", bound=type[enum.Enum])


def _plain_members(kind: _E) -> _E:
    """Make the members of `kind` plain attributes, as they are from Python 3.12 on.

    Python 3.11 finds `Stage.P2D` by slow Python code, and the scheduler asks for it at every event.
    """
    for member in kind:
        type.__setattr__(kind, member.name, member)
    return kind


@_plain_members
class Stage(enum.Enum):
    """The three kinds of transfer that a first token waits for (MFS v1, section 2), and one that none does.

    Background transfers, such as KV that is offloaded, belong to no request and no batch.
    """

    __hash__ = object.__hash__  # flows are looked up by stage, and `enum.Enum` hashes in slow Python code

    KV_REUSE = "S1"
    COLLECTIVE = "S2"
    P2D = "S3"
    BACKGROUND = "BG"


_VALUES = {stage: stage.value for stage in Stage}  # `stage.value` runs Python code

SERVING_STAGES = (Stage.KV_REUSE, Stage.COLLECTIVE, Stage.P2D)
"""The stages that a first token waits for."""


@_plain_members
class Level(enum.IntEnum):
    """The eight queues of a port; a smaller number is served first, unless a policy gives them weights.

    `CONTROL` carries acknowledgements and rendezvous and is never assigned to a flow. `P1` .. `P6`
    are the levels of the Reverse Multi-Level Queue. `SCAVENGER` is served when nothing else wants
    the link.
    """

    CONTROL = 0
    P1 = 1
    P2 = 2
    P3 = 3
    P4 = 4
    P5 = 5
    P6 = 6
    SCAVENGER = 7


RMLQ_LEVELS = (Level.P1, Level.P2, Level.P3, Level.P4, Level.P5, Level.P6)

PortId = str
"""A directed link that can be a bottleneck, named `"h1->leaf1"` after its two ends."""


class FlowFacts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What plans, messages, the scheduler and results all know about a transfer.

    For S1 and S3 a flow is one message between two ranks. For S2 it is one rank's share of a
    collective: everything that the rank sends to its peers. The shares of one collective have the
    same `coflow`.

    `downstream_ns` is how long the work that waits for the flow takes on idle links. For S1 and S2 this
    is the rest of the batch's compute and collectives. For S3 it is the transfers of the request's later
    layers and its first decode step.
    """

    id: str
    stage: Stage
    size_bytes: int
    batch: str | None = None
    layer: int | None = None
    coflow: str | None = None
    deadline_ns: int | None = None
    downstream_ns: int = 0


ALL_PEERS = -1
"""`Transfer.dst` of a share of a collective, which goes to every peer of its process group."""


class Transfer(FlowFacts, frozen=True, kw_only=True, gc=False):
    """One message of `size_bytes` from rank `src` to rank `dst`, or a rank's share of a collective.

    `coflow` is set only if it is not the coflow of the batch, layer and stage; see `belongs_to`.
    """

    src: int
    dst: int
    request: int | None = None

    @property
    def belongs_to(self) -> str | None:
        """The transfer's coflow: the one it names, or else the one of its batch, layer and stage."""
        return coflow_of(self.batch, self.layer, self.stage) if self.coflow is None else self.coflow


class Flow(FlowFacts, frozen=True, kw_only=True, gc=False):
    """A transfer as the scheduler sees it, with the bytes that it puts on each port (`load`).

    A share of a collective loads the ports to each peer with the part for that peer, so the rank's own
    uplink carries the sum. `request` is the `BatchRequest.id` of one of the batch's requests.
    """

    load: Mapping[PortId, int]
    request: str | None = None

    @classmethod
    def of(cls, transfer: Transfer, load: Mapping[PortId, int]) -> "Flow":
        """The flow of `transfer`, with the bytes that it will put on each port."""
        return cls(
            id=transfer.id,
            stage=transfer.stage,
            size_bytes=transfer.size_bytes,
            batch=transfer.batch,
            layer=transfer.layer,
            coflow=transfer.belongs_to,
            deadline_ns=transfer.deadline_ns,
            downstream_ns=transfer.downstream_ns,
            load=load,
            request=None if transfer.request is None else str(transfer.request),
        )


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a batch, as known when the batch is formed.

    Its flows name `id` as their `request`. `tail_ns` is the time on idle links from the end of the batch's
    compute to the request's first token: the S3 of the last layer and the first decode step. It is 0 in a
    fetch plan. `load` is the bytes that all S1 and S3 flows of the request will put on each port, spread
    evenly over equal-cost paths.
    """

    id: str
    deadline_ns: int
    tail_ns: int = 0
    load: Mapping[PortId, int] = {}


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler needs to know about a prefill batch, or about a fetch plan.

    `compute_ns` is the compute time of the whole batch without any network; for a fetch plan, of the
    request alone with its collectives. Only overload control uses it. `load` is the bytes that the
    collectives of all layers will put on each port.
    """

    id: str
    layers: int
    requests: tuple[BatchRequest, ...]
    compute_ns: int = 0
    load: Mapping[PortId, int] = {}

    @property
    def deadlines_ns(self) -> tuple[int, ...]:
        return tuple(request.deadline_ns for request in self.requests)


class Assignment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A flow's level from now on, with the reason in words.

    Every submitted flow gets its first assignment at once; `previous` is None there.

    A fabric that can keep an exact order (see `Scheduler`) serves the flows of a level by `order`,
    smallest first. Flows of equal order share fairly, and no flow exceeds its `rate_bps`. On a fabric
    with levels only, `order` is 0 and `rate_bps` is None.
    """

    time_ns: int
    flow: str
    level: Level
    previous: Level | None
    reason: str
    order: float = 0.0
    rate_bps: int | None = None


class GroupAssignment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An `Assignment` for all active flows of a `controller.policy.FlowGroup`, by its name."""

    group: str
    level: Level
    reason: str
    order: float = 0.0
    rate_bps: int | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One change of a flow's level, with the reason in words. `level_from` is None for its first level."""

    time_ns: int
    flow: str
    level_from: Level | None
    level_to: Level
    reason: str


def coflow_of(batch: str | None, layer: int | None, stage: Stage) -> str | None:
    """The name of the coflow of one stage of one layer of a batch; None without a batch or a layer.

    Collectives do not use it: each is a coflow of its own.
    """
    return None if batch is None or layer is None else f"{batch}.l{layer}.{_VALUES[stage]}"
