"""Forming a prefill batch from a queue: whom the queue puts first, and how many fit."""

from collections.abc import Callable, Sequence

from testbed.job import Job, Request
from testbed.serving.ideal import layer_s
from testbed.serving.steps import ReplicaWork, layer_steps


def by_deadline(queue: Sequence[Request]) -> list[Request]:
    """The most urgent first; equal deadlines by arrival, then by id."""
    return sorted(queue, key=lambda request: (request.deadline_ns, request.arrival_ns, request.id))


def too_late_last(
    queue: Sequence[Request], *, now_ns: int, unit_ns: Callable[[Request], float], most: int
) -> list[Request]:
    """`queue` without a change of order but for those who would be too late: they come last.

    It is walked as if the unit were free now and took one request after the other, each for its
    `unit_ns`. A request that would end after its deadline, its unloaded TTFT after its turn came, is

    - lost, if that holds for a turn now: it goes to the very end;
    - given up, if it is only late behind the others: it goes before the lost ones. At most `most`
      are; those beyond keep their place.

    Who goes last takes no time from the others.
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
    return in_time + given_up + lost


def token_ns(job: Job) -> float:
    """Model ns of a unit per new token, at the least: a full batch, spread evenly, on idle links.

    Compute and collectives of all layers. Attention scores, which depend on the prompt, are left
    out. All units are as the first one.
    """
    unit, replicas = next(iter(job.placement.replicas.items()))
    share = max(1, job.serving.max_batch_tokens // len(replicas))
    work = [ReplicaWork(new_tokens=share, score_flops=0)] * len(replicas)
    steps = layer_steps(
        work,
        unit=unit,
        placement=job.placement,
        model=job.model,
        gpu=job.gpu,
        all_reduce=job.serving.all_reduce,
    )
    batch_s = job.model.layers * layer_s(steps, job.placement, job.topology)
    return batch_s * 1e9 / (share * len(replicas))


def take_batch(
    queue: Sequence[Request], new_tokens: Callable[[Request], int], max_batch_tokens: int
) -> list[Request]:
    """The longest run from the head of `queue` whose new tokens fit into `max_batch_tokens`.

    Only tokens to compute count; reused ones cost no compute. The order is never changed to fill a
    batch up, so a request that does not fit ends it. A head that is larger than the whole budget
    forms a batch by itself, otherwise it would wait for ever.
    """
    batch: list[Request] = []
    budget = max_batch_tokens
    for request in queue:
        budget -= new_tokens(request)
        if batch and budget < 0:
            break
        batch.append(request)
    return batch
