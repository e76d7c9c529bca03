"""Decides whether more urgent requests go before a batch that has paused between two layers."""

from collections.abc import Callable, Hashable, Iterable

from controller.units import NS_PER_S
from testbed.job import Placement, Request
from testbed.serving.batching.forming import by_deadline
from testbed.serving.plans.idle_network import layer_s
from testbed.topology import Topology
from workers.plan import BatchPlan, Compute, LayerPlan, Step


def urgent(
    queue: Iterable[Request],
    *,
    now_ns: int,
    rest_ns: float,
    due_ns: int,
    unit_ns: Callable[[Request], float],
) -> list[Request]:
    """The requests of `queue` that go before a paused batch, in order of deadline.

    `rest_ns` is the time that the rest of the batch takes on idle links. `due_ns` is the earliest
    deadline of its requests. A request goes before the batch if

    - its deadline is before `due_ns`,
    - it would be too late after the batch: now + rest + its unloaded TTFT is after its deadline,
    - it would be in time before the batch: its turn + its unloaded TTFT is not after its deadline.

    The requests that go before the batch take turns, from now on; each turn lasts `unit_ns`.
    """
    chosen: list[Request] = []
    turn_ns = float(now_ns)
    for request in by_deadline(list(queue)):
        if request.deadline_ns >= due_ns:
            break
        late_after = now_ns + rest_ns + request.unloaded_ns > request.deadline_ns
        if late_after and turn_ns + request.unloaded_ns <= request.deadline_ns:
            chosen.append(request)
            turn_ns += unit_ns(request)
    return chosen


def rest_ns(plan: BatchPlan, layer: int, placement: Placement, topology: Topology) -> float:
    """Model ns of the compute and collectives of `plan` from `layer` on, on idle links, without S1."""
    known: dict[Hashable, float] = {}
    total_s = 0.0
    for each in plan.layers[layer:]:
        # Most layers differ only in their ids, and those of a large unit take long to work out.
        kind = _kind(each)
        if kind not in known:
            known[kind] = layer_s(each.steps, placement, topology)
        total_s += known[kind]
    return total_s * NS_PER_S


def _kind(layer: LayerPlan) -> Hashable:
    return tuple(_what(step) for step in layer.steps)


def _what(step: Step) -> Hashable:
    if isinstance(step, Compute):
        return step.label, step.seconds
    return step.label, step.group, step.kind, step.sizes, step.round_seconds
