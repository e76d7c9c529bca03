"""The vocabulary of scheduling: stages, levels, flows, batches, assignments.

All times are nanoseconds of *model* time, all sizes model bytes, all rates model bits per second.
A fabric that runs slower or smaller than the model (see `testbed.job.Scale`) converts at its edge.
"""

import enum
from collections.abc import Mapping

import msgspec


class Stage(enum.Enum):
    """The three kinds of transfer that a first token waits for (MFS v1, section 2)."""

    __hash__ = object.__hash__  # that of `enum.Enum` is Python, and every flow is looked up by its stage

    KV_REUSE = "S1"
    COLLECTIVE = "S2"
    P2D = "S3"


class Level(enum.IntEnum):
    """The eight strict-priority queues of a port; a smaller number is served first.

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
    """What is known of a transfer wherever it goes: in a plan, in messages, to the scheduler, in results.

    For S1 and S3 a flow is one message between two ranks. For S2 it is one rank's share of a
    collective: everything that rank sends to its peers. The shares of one collective have the same
    `coflow`.

    `downstream_ns` is what cannot begin before the flow has arrived, on idle links: for S1 and S2
    the rest of the batch's compute and collectives, for S3 the transfers of the request's later
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

    `coflow` names a coflow that is not that of a batch; see `belongs_to`.
    """

    src: int
    dst: int
    request: int | None = None

    @property
    def belongs_to(self) -> str | None:
        """The coflow the transfer is of: the one it names, else that of its batch, layer and stage."""
        return coflow_of(self.batch, self.layer, self.stage) if self.coflow is None else self.coflow


class Flow(FlowFacts, frozen=True, kw_only=True, gc=False):
    """A transfer as the scheduler sees it: what it can hold back or push forward.

    `load` is what the flow puts on each port of its path(s), in bytes; a share of a collective
    loads its own uplink with all of it and each peer's downlink with a part. `request` is the id of
    one of its batch's requests (`BatchRequest.id`).
    """

    load: Mapping[PortId, int]
    request: str | None = None

    @classmethod
    def of(cls, transfer: Transfer, load: Mapping[PortId, int]) -> "Flow":
        """`transfer` with what it will put on each port."""
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
    """One request of a batch, as it is known when the batch is formed.

    `id` is what its flows name as `request`. `tail_ns` is the time from the end of the batch's compute to its
    first token on idle links: the S3 of the last layer and the first decode step. `load` is what all its
    S1 and S3 flows together will put on each port, in bytes; equal-cost paths count evenly.
    """

    id: str
    deadline_ns: int
    tail_ns: int = 0
    load: Mapping[PortId, int] = {}


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A prefill batch, as far as the scheduler needs to know it.

    `compute_ns` is the profiled compute time of the whole batch without any network (used for
    feasibility, not for pacing). `load` is what its collectives will put on each port in all
    layers, in bytes.
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
    """The scheduler's word on one flow: be at `level` from now on, because of `reason`.

    `previous` is `None` for the first assignment, which every submitted flow gets at once.

    A fabric that can keep an exact order (see `Scheduler`) serves the flows of a level by `order`,
    smallest first, equal ones sharing fairly, and no flow faster than its `rate_bps`. On a fabric with
    levels only, `order` is 0 and `rate_bps` is None.
    """

    time_ns: int
    flow: str
    level: Level
    previous: Level | None
    reason: str
    order: float = 0.0
    rate_bps: int | None = None


def coflow_of(batch: str | None, layer: int | None, stage: Stage) -> str | None:
    """What coflow policies order by: the transfers of one stage of one layer of one batch belong together.

    None without a batch or a layer. A collective is a coflow of its own.
    """
    return None if batch is None or layer is None else f"{batch}.l{layer}.{stage.value}"
