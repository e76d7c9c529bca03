"""Rules by name: the order in which a unit takes waiting requests, and which of them may share a batch.

A rule lists the candidates for the next batch, and `forming.take_batch` takes as many of them as fit.
docs/concepts/batching.md says what each rule promises.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from controller.overload import QueueOrder, RequestControl
from controller.urgency import red
from testbed.job import Job, Request
from testbed.serving.batching.forming import by_deadline, standing, token_ns

PATIENCE = 4
"""`LengthAware`: a request may be overtaken by shorter ones for this many times its own compute time."""

ALIKE = 2
"""`LengthAware`: the longest prompt of a batch may have this many times the tokens of the shortest."""

SHORT = 1 / 16
"""`LengthAware`: a prompt counts as at least this share of `max_batch_tokens`."""


class Waiting(NamedTuple):
    """A request of a queue, and the new tokens it has yet to compute, as far as is known now."""

    request: Request
    tokens: int


class Rule(Protocol):
    def candidates(self, now_ns: int, queue: Sequence[Waiting]) -> list[Request]:
        """The requests that may be in the next batch, in the order to take them.

        `queue` is in order of arrival, except that requests computed in part are at its head. Unless it is
        empty, there is at least one candidate.
        """
        ...


class FirstCome:
    """In order of arrival."""

    def candidates(self, now_ns: int, queue: Sequence[Waiting]) -> list[Request]:
        return [waiting.request for waiting in queue]


class EarliestDeadline:
    """In order of deadline; ties by arrival, then by id."""

    def candidates(self, now_ns: int, queue: Sequence[Waiting]) -> list[Request]:
        return by_deadline([waiting.request for waiting in queue])


class Red:
    """In order of deadline, but requests that would be too late (`forming.standing`) come after the others.

    With `apart`, they share no batch with requests in time. A batch of requests in time is then only as
    large as its robust effective deadline (RED) allows: the first request with which it would end after
    its RED waits for the next batch. So requests with loose deadlines are not served at the expense of
    tight ones.
    """

    def __init__(self, token_ns: float, control: RequestControl, *, apart: bool) -> None:
        self._token_ns = token_ns
        self._control = control
        self._apart = apart

    def candidates(self, now_ns: int, queue: Sequence[Waiting]) -> list[Request]:
        unit_ns = {waiting.request.id: waiting.tokens * self._token_ns for waiting in queue}
        in_time, given_up, lost = standing(
            by_deadline([waiting.request for waiting in queue]),
            now_ns=now_ns,
            unit_ns=lambda request: unit_ns[request.id],
            most=self._control.most_pruned(len(queue)),
        )
        if not self._apart:
            return in_time + given_up + lost
        if not in_time:
            return given_up + lost
        end_ns = float(now_ns)
        for count, request in enumerate(in_time):
            end_ns += unit_ns[request.id]
            if count and end_ns > red([r.deadline_ns for r in in_time[: count + 1]]):
                return in_time[:count]
        return in_time


class LengthAware:
    """Short prompts first, with aging, and only prompts of similar length in one batch.

    Requests are in order of arrival + `PATIENCE` x new tokens x `token_ns`. So a shorter request
    overtakes a longer one only if it arrives within `PATIENCE` times the longer one's own compute.
    Lengths are similar if they are within a factor of `ALIKE`; a length below `short_tokens` counts as
    `short_tokens`. The first request of the order is always in the batch. So no request waits forever:
    only requests ahead of it in this order can start a batch before it does.
    """

    def __init__(self, token_ns: float, short_tokens: float) -> None:
        self._token_ns = token_ns
        self._short_tokens = short_tokens

    def candidates(self, now_ns: int, queue: Sequence[Waiting]) -> list[Request]:
        ordered = sorted(queue, key=lambda w: (self._turn_ns(w), w.request.arrival_ns, w.request.id))
        shortest = longest = max(self._short_tokens, ordered[0].tokens)
        batch = []
        for waiting in ordered:
            tokens = max(self._short_tokens, waiting.tokens)
            if max(longest, tokens) <= ALIKE * min(shortest, tokens):
                shortest, longest = min(shortest, tokens), max(longest, tokens)
                batch.append(waiting.request)
        return batch

    def _turn_ns(self, waiting: Waiting) -> float:
        return waiting.request.arrival_ns + PATIENCE * waiting.tokens * self._token_ns


class Batching(NamedTuple):
    """A way to form batches: a description in one line, and its rule for a unit of a job."""

    description: str
    rule: Callable[[Job, str], Rule]


BATCHING: dict[str, Batching] = {
    "fcfs": Batching("in order of arrival", lambda job, unit: FirstCome()),
    "deadline": Batching("the earliest deadline first", lambda job, unit: EarliestDeadline()),
    "red": Batching(
        "by deadline, requests that would be too late apart and last, and no batch that ends after its RED",
        lambda job, unit: Red(token_ns(job, unit), job.control or RequestControl(), apart=True),
    ),
    "length-aware": Batching(
        "short prompts first, with aging, and prompts of similar length together",
        lambda job, unit: LengthAware(token_ns(job, unit), SHORT * job.serving.max_batch_tokens),
    ),
}


def make_rule(job: Job, unit: str) -> Rule:
    """The rule that `job.serving.batching` names, for `unit`.

    Without a name, it is the rule that the policy's request control asks for; without that too, order of
    arrival. Raises `ValueError` for an unknown name; the message lists the known ones.
    """
    name, control = job.serving.batching, job.control
    if name is not None:
        if name not in BATCHING:
            raise ValueError(f"unknown batching {name!r} (known: {', '.join(BATCHING)})")
        return BATCHING[name].rule(job, unit)
    if control is None or control.order is QueueOrder.FCFS:
        return FirstCome()
    if not control.prune:
        return EarliestDeadline()
    return Red(token_ns(job, unit), control, apart=False)
