"""What comes after each flow of a plan, and what a batch will put on each port.

All times are on idle links, so a scheduler can know them when a batch is formed, whatever else runs.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from controller.flow import Batch, BatchRequest, PortId, Transfer
from controller.units import NS_PER_S
from testbed.job import Placement
from testbed.serving.plans.idle_network import (
    drain_s,
    layers_s,
    merged,
    port_loads,
    scaled,
    step_traffic,
    transfer_traffic,
)
from testbed.topology import Topology
from workers.plan import BatchPlan, Collective, LayerPlan, Step

S = TypeVar("S", Transfer, Collective)


def with_downstream(plan: BatchPlan, topology: Topology, placement: Placement) -> BatchPlan:
    """Return the plan with `downstream_ns` set on every transfer and collective.

    Let t_l be the time of the steps of layer l on idle links, and s3_l the time of a request's S3 of it:

        collective of layer l    the later steps of layer l + t of all later layers
        S1 of layer l            t of layer l and of all later layers
        S3 of layer l            s3 of all later layers + decode step
    """
    if not plan.layers:
        return plan
    rest_s, whole_s = _by_layer(plan, topology, placement)
    s3_s = _s3_by_layer(plan, topology, placement)
    decode_s = {request.request: request.decode_step_s for request in plan.requests}
    steps_later: Counter[float] = Counter()
    s3_later: dict[int, Counter[float]] = {request.request: Counter() for request in plan.requests}
    told: list[LayerPlan] = []
    for number in reversed(range(len(plan.layers))):
        layer, after_s = plan.layers[number], _sum_s(steps_later)
        steps_later[whole_s[number]] += 1
        from_here_s = _sum_s(steps_later)
        told.append(
            msgspec.structs.replace(
                layer,
                wait=tuple(_then(t, from_here_s) for t in layer.wait),
                steps=tuple(
                    _then(step, rest + after_s) if isinstance(step, Collective) else step
                    for step, rest in zip(layer.steps, rest_s[number], strict=True)
                ),
                post=tuple(
                    _then(t, _sum_s(s3_later[t.request]) + decode_s[t.request])
                    if t.request is not None
                    else t
                    for t in layer.post
                ),
            )
        )
        for request, seconds in s3_s[number].items():
            s3_later[request][seconds] += 1
    return msgspec.structs.replace(plan, layers=tuple(reversed(told)))


def _sum_s(times: Counter[float]) -> float:
    """Most layers take equally long, and a product has a smaller rounding error than a sum."""
    return sum(seconds * count for seconds, count in times.items())


def announced(plan: BatchPlan, topology: Topology, placement: Placement) -> Batch:
    """The batch that stands for `plan` in the scheduler."""
    s3_s = _s3_s(plan, plan.layers[-1], topology, placement)
    # Sizes are whole numbers far below 2^53, so a product is the same float as a sum over the layers.
    collectives = merged(
        scaled(step_traffic(layers[0].steps, placement), len(layers)) for layers in _alike(plan.layers)
    )
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
                tail_ns=round((s3_s[request.request] + request.decode_step_s) * NS_PER_S),
                load=_whole_bytes(
                    port_loads(transfer_traffic(transfers[request.request], placement), topology)
                ),
            )
            for request in plan.requests
        ),
        compute_ns=round(plan.compute_s * NS_PER_S),
        load=_whole_bytes(port_loads(collectives, topology)),
    )


def _by_layer(
    plan: BatchPlan, topology: Topology, placement: Placement
) -> tuple[list[list[float]], list[float]]:
    """For each layer, `_after_each` of its steps, and the seconds of all its steps."""
    rest_s: dict[int, list[float]] = {}
    whole_s: dict[int, float] = {}
    for layers in _alike(plan.layers):
        steps = layers[0].steps
        whole, *rest = layers_s([steps, *_after_each(steps)], placement, topology)
        for layer in layers:
            rest_s[layer.index], whole_s[layer.index] = rest, whole
    return [rest_s[layer.index] for layer in plan.layers], [whole_s[layer.index] for layer in plan.layers]


def _alike(layers: Iterable[LayerPlan]) -> list[list[LayerPlan]]:
    """The layers in lists of those whose steps differ only in their ids, in the order of first layers."""
    known: list[tuple[tuple[object, ...], list[LayerPlan]]] = []
    for layer in layers:
        shape = tuple(map(_shape, layer.steps))
        alike = next((alike for other, alike in known if other == shape), None)
        if alike is None:
            known.append((shape, [layer]))
        else:
            alike.append(layer)
    return [alike for _, alike in known]


def _shape(step: Step) -> object:
    """All that a step's times depend on."""
    if isinstance(step, Collective):
        return step.group, step.kind, step.sizes, step.label, step.round_seconds
    return step


def _after_each(steps: Sequence[Step]) -> list[Sequence[Step]]:
    """For each step, the layer's later steps.

    Consecutive collectives with the same label run at once in different groups, so none of them is later.
    """
    ends = list(range(1, len(steps) + 1))
    for i in reversed(range(len(steps) - 1)):
        this, following = steps[i], steps[i + 1]
        together = isinstance(this, Collective) and isinstance(following, Collective)
        if together and this.label == following.label:
            ends[i] = ends[i + 1]
    return [steps[end:] for end in ends]


def _s3_by_layer(plan: BatchPlan, topology: Topology, placement: Placement) -> list[dict[int, float]]:
    """`_s3_s` of each layer. Layers that post the same are worked out once."""
    known: dict[tuple[tuple[int | None, int, int, int], ...], dict[int, float]] = {}
    found: list[dict[int, float]] = []
    for layer in plan.layers:
        posted = tuple((t.request, t.src, t.dst, t.size_bytes) for t in layer.post)
        if posted not in known:
            known[posted] = _s3_s(plan, layer, topology, placement)
        found.append(known[posted])
    return found


def _s3_s(plan: BatchPlan, layer: LayerPlan, topology: Topology, placement: Placement) -> dict[int, float]:
    """Seconds of each request's S3 in one layer, with its shards in parallel."""
    shards: dict[int, list[Transfer]] = {request.request: [] for request in plan.requests}
    for transfer in layer.post:
        if transfer.request is not None:
            shards[transfer.request].append(transfer)
    return {
        request: drain_s(transfer_traffic(transfers, placement), topology)
        for request, transfers in shards.items()
    }


def _whole_bytes(loads: dict[PortId, float]) -> dict[PortId, int]:
    return {port: round(size) for port, size in loads.items()}


def _then(flow: S, seconds: float) -> S:
    return msgspec.structs.replace(flow, downstream_ns=round(seconds * NS_PER_S))
