"""Forming a prefill batch from a queue: who is in time, how many fit, and whose prompt is split.

Whom a queue puts first is in `testbed.serving.batching.rules`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from testbed.job import Job, Request
from testbed.serving.plans.idle_network import layer_s
from testbed.serving.plans.steps import ReplicaWork, slowest_stage, step_options, unit_steps


def by_deadline(queue: Sequence[Request]) -> list[Request]:
    """The most urgent first; equal deadlines by arrival, then by id."""
    return sorted(queue, key=lambda request: (request.deadline_ns, request.arrival_ns, request.id))


class Standing(NamedTuple):
    """A queue in three: who is in time, whom to give up for the others, and who is lost."""

    in_time: list[Request]
    given_up: list[Request]
    lost: list[Request]


def standing(
    queue: Iterable[Request], *, now_ns: int, unit_ns: Callable[[Request], float], most: int
) -> Standing:
    """Who of `queue` would be too late; each of the three in the order of `queue`.

    It is walked as if the unit were free now and took one request after the other, each for its
    `unit_ns`. A request that would end after its deadline, its unloaded TTFT after its turn came, is

    - lost, if that holds for a turn now;
    - given up, if it is only late behind the others. At most `most` are; those beyond count as in time.

    Only who is in time takes time from the others.
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


def token_ns(job: Job) -> float:
    """Model ns of a unit per new token, at the least: a full batch, spread evenly, on idle links.

    Compute and collectives of all layers, of a pipeline those of its slowest stage: the others are at other
    batches. Attention scores, which depend on the prompt, are left out. All units are as the first one.
    """
    unit, replicas = next(iter(job.placement.replicas.items()))
    share = max(1, job.serving.max_batch_tokens // len(replicas))
    work = [ReplicaWork(new_tokens=share, score_flops=0)] * len(replicas)
    alike = unit_steps(
        work,
        unit=unit,
        placement=job.placement,
        model=job.model,
        gpu=job.gpu,
        options=step_options(job),
    )
    batch_s = slowest_stage(
        alike, lambda group: len(group.layers) * layer_s(group.steps, job.placement, job.topology)
    )
    return batch_s * 1e9 / (share * len(replicas))


class Part(NamedTuple):
    """A request of a batch. `tokens` of its prompt are computed in it, None: all that is left."""

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

    Only tokens to compute count; reused ones cost no compute. The order is never changed to fill a
    batch up, so a request that does not fit ends it. With `split` as much of it as fits is taken along.
    Without, a head that is larger than the whole budget forms a batch by itself, otherwise it would
    wait for ever.
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
