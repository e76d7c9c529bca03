"""Forms a batch from a queue: which requests are in time, how many fit, and which prompt is split.

The order of a queue is up to `testbed.serving.batching.rules`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from controller.units import NS_PER_S
from testbed.job import Job, Request
from testbed.serving.plans.idle_network import layer_s
from testbed.serving.plans.steps import ReplicaWork, slowest_stage, steps_of


def by_deadline(queue: Sequence[Request]) -> list[Request]:
    """The requests in order of deadline; ties by arrival, then by id."""
    return sorted(queue, key=lambda request: (request.deadline_ns, request.arrival_ns, request.id))


class Standing(NamedTuple):
    """A queue in three lists: requests in time, requests given up for the others, and lost requests."""

    in_time: list[Request]
    given_up: list[Request]
    lost: list[Request]


def standing(
    queue: Iterable[Request], *, now_ns: int, unit_ns: Callable[[Request], float], most: int
) -> Standing:
    """Find the requests of `queue` that would be too late. Each list keeps the order of `queue`.

    The requests take turns, as if the unit were free now and took one after the other, each for its
    `unit_ns`. A request is too late if its turn plus its unloaded TTFT is after its deadline. It is then

    - lost, if it would be too late even with its turn now;
    - given up, if it is too late only because of the requests before it. At most `most` requests are given
      up; more than that count as in time.

    Only requests that count as in time take a turn.
    """
    in_time: list[Request] = []
    given_up: list[Request] = []
    lost: list[Request] = []
    turn_ns = float(now_ns)
    for request in queue:
        if now_ns + request.unloaded_ns > request.deadline_ns:
            lost.append(request)
        elif turn_ns + request.unloaded_ns > request.deadline_ns and len(given_up) < most:
            given_up.append(request)
        else:
            in_time.append(request)
            turn_ns += unit_ns(request)
    return Standing(in_time, given_up, lost)


def token_ns(job: Job, unit: str) -> float:
    """Model ns that `unit` takes per new token at least: in a full, evenly spread batch on idle links.

    This is the compute and the collectives of all layers. In a pipeline it is those of the slowest stage,
    because the others work on other batches. Attention scores depend on the prompt and are left out.
    """
    replicas = job.placement.replicas[unit]
    share = max(1, job.serving.max_batch_tokens // len(replicas))
    work = [ReplicaWork(new_tokens=share)] * len(replicas)
    alike = steps_of(job, unit, work)
    batch_s = slowest_stage(
        alike, lambda group: len(group.layers) * layer_s(group.steps, job.placement, job.topology)
    )
    return batch_s * NS_PER_S / (share * len(replicas))


class Part(NamedTuple):
    """A request of a batch. The batch computes `tokens` of its prompt; None: all that are left."""

    request: Request
    tokens: int | None


def take_batch(
    queue: Iterable[Request],
    new_tokens: Callable[[Request], int],
    max_batch_tokens: int,
    *,
    split: bool = False,
) -> list[Part]:
    """The longest run from the head of `queue` whose new tokens fit into `max_batch_tokens`.

    Reused tokens do not count, because they cost no compute. The order is never changed to fill a batch up,
    so the first request that does not fit ends it. With `split`, the batch takes the part of it that fits.
    Without, a first request that alone exceeds `max_batch_tokens` is a batch by itself; otherwise it would
    wait forever.
    """
    batch: list[Part] = []
    budget = max_batch_tokens
    for request in queue:
        tokens = new_tokens(request)
        if tokens > budget and split:
            if budget > 0:
                batch.append(Part(request, budget))
            break
        if tokens > budget and batch:
            break
        batch.append(Part(request, None))
        budget -= tokens
    return batch
