"""What comes after each flow of a plan, and what a batch will put on each port.

All times are on idle links, so a scheduler can know them when a batch is formed, whatever else runs.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from controller.flow import Batch, BatchRequest, PortId, Transfer
from controller.units import NS_PER_S
from testbed.job import Placement
from testbed.serving.plans.idle_network import (
    Message,
    drain_s,
    layers_s,
    merged,
    port_loads,
    scaled,
    step_traffic,
    transfer_traffic,
)
from testbed.serving.plans.steps import AlikeLayers
from testbed.topology import Topology
from workers.plan import BatchPlan, Collective, LayerPlan, Step


class Downstream(NamedTuple):
    """What comes after the flows of one layer, in ns: after S1, after each step, after S3 by request."""

    s1_ns: int
    steps_ns: tuple[int, ...]
    s3_ns: dict[int, int]


def downstream(
    alike: Iterable[AlikeLayers],
    s3_s: Mapping[tuple[int, int], Mapping[int, float]],
    decode_s: Mapping[int, float],
    placement: Placement,
    topology: Topology,
) -> dict[int, Downstream]:
    """What comes after the flows of a batch, by layer.

    `s3_s[kind]` are the seconds of each request's S3 of a layer of that kind (`s3_seconds`, `AlikeLayers`),
    and `decode_s` those of its first decode step. Let t_l be the time of the steps of layer l on idle links,
    and s3_l the time of a request's S3 of it:

        collective of layer l    the later steps of layer l + t of all later layers
        S1 of layer l            t of layer l and of all later layers
        S3 of layer l            s3 of all later layers + decode step
    """
    steps_s: dict[int, tuple[float, list[float]]] = {}
    kinds: dict[int, tuple[int, int]] = {}
    for group in alike:
        whole_s, *rest_s = layers_s([group.steps, *_after_each(group.steps)], placement, topology)
        steps_s |= dict.fromkeys(group.layers, (whole_s, rest_s))
        kinds |= dict.fromkeys(group.layers, group.kind)
    steps_later: Counter[float] = Counter()
    s3_later: dict[int, Counter[float]] = {request: Counter() for request in decode_s}
    found: dict[int, Downstream] = {}
    for layer in sorted(steps_s, reverse=True):
        (whole_s, rest_s), after_s = steps_s[layer], _sum_s(steps_later)
        steps_later[whole_s] += 1
        found[layer] = Downstream(
            s1_ns=_ns(_sum_s(steps_later)),
            steps_ns=tuple(_ns(rest + after_s) for rest in rest_s),
            s3_ns={request: _ns(_sum_s(later) + decode_s[request]) for request, later in s3_later.items()},
        )
        for request, seconds in s3_s[kinds[layer]].items():
            s3_later[request][seconds] += 1
    return found


def _sum_s(times: Counter[float]) -> float:
    """Most layers take equally long, and a product has a smaller rounding error than a sum."""
    total_s = 0.0
    for seconds, count in times.items():  # there are few: a generator would cost more than they do
        total_s += seconds * count
    return total_s


def s3_seconds(
    requests: Collection[int], posted: Iterable[Message], placement: Placement, topology: Topology
) -> dict[int, float]:
    """Seconds of the S3 of each of `requests` in one layer, with its shards in parallel."""
    shards: dict[int | None, list[Message]] = {request: [] for request in requests}
    for message in posted:
        shards[message.request].append(message)
    return {request: drain_s(transfer_traffic(shards[request], placement), topology) for request in requests}


def announced(plan: BatchPlan, topology: Topology, placement: Placement) -> Batch:
    """The batch that stands for `plan` in the scheduler."""
    decode_s = {request.request: request.decode_step_s for request in plan.requests}
    s3_s = s3_seconds(decode_s, plan.layers[-1].post, placement, topology)
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
                tail_ns=_ns(s3_s[request.request] + request.decode_step_s),
                load=_whole_bytes(
                    port_loads(transfer_traffic(transfers[request.request], placement), topology)
                ),
            )
            for request in plan.requests
        ),
        compute_ns=round(plan.compute_s * NS_PER_S),
        load=_whole_bytes(port_loads(collectives, topology)),
    )


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


def _whole_bytes(loads: dict[PortId, float]) -> dict[PortId, int]:
    return {port: round(size) for port, size in loads.items()}


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)
