"""Whether a batch that has paused between two layers lets a more urgent one go first."""

from collections.abc import Callable, Hashable, Iterable

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
    """Who of `queue` is to go before a paused batch, the earliest deadline first.

    `rest_ns` is what is left of the batch on idle links, `due_ns` the earliest deadline of its requests. A
    request goes before it if

    - it is due before all of the batch,
    - it would be too late after it: now + rest + its unloaded TTFT is after its deadline,
    - and it is not before it: its turn + its unloaded TTFT is not. Turns come one after the other, of those
      that go before the batch, from now on; each lasts `unit_ns`.
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
    """Compute and collectives of `plan` from `layer` on, on idle links; what it waits for is not in it."""
    known: dict[Hashable, float] = {}
    total_s = 0.0
    for each in plan.layers[layer:]:
        # Most layers are alike but for ids, and to work one out is not cheap for a large unit.
        kind = _kind(each)
        if kind not in known:
            known[kind] = layer_s(each.steps, placement, topology)
        total_s += known[kind]
    return total_s * 1e9


def _kind(layer: LayerPlan) -> Hashable:
    return tuple(_what(step) for step in layer.steps)


def _what(step: Step) -> Hashable:
    if isinstance(step, Compute):
        return step.label, step.seconds
    return step.label, step.group, step.kind, step.sizes, step.round_seconds
