"""What is still to come after each flow of a plan, and what a batch will put on each port.

All on idle links: facts a scheduler can know when a batch is formed, without knowing the others.
"""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from controller.flow import Batch, BatchRequest, PortId
from testbed.job import Placement
from testbed.serving.ideal import (
    drain_s,
    layer_s,
    merged,
    port_loads,
    step_traffic,
    transfer_traffic,
)
from testbed.topology import Topology
from workers.plan import BatchPlan, Collective, LayerPlan, Step, Transfer

S = TypeVar("S", Transfer, Collective)

_NS = 1e9


def with_downstream(plan: BatchPlan, topology: Topology, placement: Placement) -> BatchPlan:
    """The same plan with `downstream_ns` set on every transfer and collective.

    With t a layer's steps on idle links, L layers and s3 the transfer of one layer of a request:

        collective of layer l    what follows it in layer l, and (L - 1 - l) t
        S1 of layer l            (L - l) t
        S3 of layer l            (L - 1 - l) s3 + decode step
    """
    if not plan.layers:
        return plan
    # The layers of a batch are alike but for the ids: one is worked out, all are told.
    steps = plan.layers[0].steps
    rest_s = _after_each(steps, topology, placement)
    whole_s = layer_s(steps, placement, topology)
    s3_s = _s3_s(plan, topology, placement)
    decode_s = {request.request: request.decode_step_s for request in plan.requests}
    count = len(plan.layers)

    def told(layer: LayerPlan) -> LayerPlan:
        later = count - 1 - layer.index
        return LayerPlan(
            index=layer.index,
            wait=tuple(_then(t, (later + 1) * whole_s) for t in layer.wait),
            steps=tuple(
                _then(step, after_s + later * whole_s) if isinstance(step, Collective) else step
                for step, after_s in zip(layer.steps, rest_s, strict=True)
            ),
            post=tuple(
                _then(t, later * s3_s[t.request] + decode_s[t.request]) if t.request is not None else t
                for t in layer.post
            ),
        )

    return msgspec.structs.replace(plan, layers=tuple(told(layer) for layer in plan.layers))


def announced(plan: BatchPlan, topology: Topology, placement: Placement) -> Batch:
    """`plan` as the scheduler is told of it."""
    s3_s = _s3_s(plan, topology, placement)
    collectives = merged(step_traffic(layer.steps, placement) for layer in plan.layers)
    transfers: dict[int | None, list[Transfer]] = {request.request: [] for request in plan.requests}
    for layer in plan.layers:
        for transfer in (*layer.wait, *layer.post):
            transfers[transfer.request].append(transfer)
    return Batch(
        id=plan.id,
        layers=len(plan.layers),
        requests=tuple(
            BatchRequest(
                id=str(request.request),
                deadline_ns=request.deadline_ns,
                tail_ns=round((s3_s[request.request] + request.decode_step_s) * _NS),
                load=_whole_bytes(
                    port_loads(transfer_traffic(transfers[request.request], placement), topology)
                ),
            )
            for request in plan.requests
        ),
        compute_ns=round(plan.compute_s * _NS),
        load=_whole_bytes(port_loads(collectives, topology)),
    )


def _after_each(steps: Sequence[Step], topology: Topology, placement: Placement) -> list[float]:
    """For each step, the seconds of the layer's later steps. Consecutive collectives of one label
    run at once, in different groups: none of them comes after another."""
    ends = list(range(1, len(steps) + 1))
    for i in reversed(range(len(steps) - 1)):
        this, following = steps[i], steps[i + 1]
        together = isinstance(this, Collective) and isinstance(following, Collective)
        if together and this.label == following.label:
            ends[i] = ends[i + 1]
    return [layer_s(steps[end:], placement, topology) for end in ends]


def _s3_s(plan: BatchPlan, topology: Topology, placement: Placement) -> dict[int, float]:
    """Seconds of one layer's S3 of each request, its shards in parallel."""
    shards: dict[int, list[Transfer]] = {request.request: [] for request in plan.requests}
    for transfer in plan.layers[-1].post:
        if transfer.request is not None:
            shards[transfer.request].append(transfer)
    return {
        request: drain_s(transfer_traffic(transfers, placement), topology)
        for request, transfers in shards.items()
    }


def _whole_bytes(loads: dict[PortId, float]) -> dict[PortId, int]:
    return {port: round(size) for port, size in loads.items()}


def _then(flow: S, seconds: float) -> S:
    return msgspec.structs.replace(flow, downstream_ns=round(seconds * _NS))
