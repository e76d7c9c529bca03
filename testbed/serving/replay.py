"""The batches of one run, made again: for another fabric to run them, flow for flow.

What a batch holds depends on when things end, so two fabrics form other batches from the same requests, and
from then on no flow of one has its like in the other. The serving system is a function of its events, though:
told what happened in a run, in that order, it makes that run's batches again.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from testbed.job import Job, Request
from testbed.record import CacheRow, RequestRow
from testbed.serving.system import ServingSystem
from workers.plan import BatchPlan, FetchPlan, Resume


class PlannedBatches:
    """Starts each batch of `plans` when its requests are there and its unit has fewer than `at_once`."""

    def __init__(self, plans: Iterable[BatchPlan], *, at_once: int = 1) -> None:
        self._to_come: dict[str, deque[BatchPlan]] = {}
        for plan in plans:
            self._to_come.setdefault(plan.unit, deque()).append(plan)
        self._at_once = at_once
        self._running: dict[str, str] = {}
        self._arrived: set[int] = set()

    def arrive(self, now_ns: int, request: Request) -> list[BatchPlan | FetchPlan]:
        self._arrived.add(request.id)
        return [plan for unit in self._to_come for plan in self._start(unit)]

    def batch_done(self, now_ns: int, batch_id: str) -> list[BatchPlan | Resume]:
        """Raises `ValueError` for a batch that is not running."""
        if batch_id not in self._running:
            raise ValueError(f"batch {batch_id!r} is not running")
        return [*self._start(self._running.pop(batch_id))]

    def paused(self, now_ns: int, batch_id: str, layer: int) -> list[BatchPlan | Resume]:
        """Nothing goes first that is not planned to."""
        return [Resume(batch=batch_id)]

    def first_token(self, now_ns: int, request_id: int) -> None:
        """Nothing depends on it here."""

    def describe(self) -> str:
        return f"{sum(map(len, self._to_come.values()))} batches to come"

    def caches(self) -> tuple[CacheRow, ...]:
        """Nothing is cached here: what is reused is in the plans."""
        return ()

    def _start(self, unit: str) -> list[BatchPlan]:
        waiting = self._to_come[unit]
        started: list[BatchPlan] = []
        while waiting and list(self._running.values()).count(unit) < self._at_once:
            if not all(item.request in self._arrived for item in waiting[0].requests):
                break
            started.append(waiting.popleft())
            self._running[started[-1].id] = unit
        return started


class NotReplayable(ValueError):
    """The events of the run do not give its batches again. The message names the first that differs."""


def plans_of(job: Job, rows: Sequence[RequestRow]) -> tuple[BatchPlan, ...]:
    """The batches that a run of `job` formed, in the order in which it did; `rows` are its requests.

    The serving system hears of the end of a batch a moment after the last rank noted it. What happened
    between the two is told in the wrong order here, which may give another batch: that raises
    `NotReplayable`, as do requests that were not completed, split prompts, preemption, and reused KV that is
    sent for when a request is queued: plans are of batches only.
    """
    if job.serving.fetch_early:
        raise NotReplayable("S1 was sent for while requests were queued (serving.fetch), which no plan tells")
    if job.serving.chunk_tokens is not None or job.serving.preempt_layers is not None:
        raise NotReplayable(
            "a run does not tell all that decided on split prompts and preempted batches"
            " (serving.chunk_tokens, serving.preempt_layers)"
        )
    requests = {request.id: request for request in job.requests}
    ends: dict[str, int] = {}
    events: list[tuple[int, int, str, int]] = []
    for row in rows:
        if row.batch is None or row.prefill_end_ns is None or row.first_token_ns is None:
            raise NotReplayable(f"request {row.request} was not completed")
        if row.request not in requests:
            raise NotReplayable(f"request {row.request} is not one of this scenario and seed")
        ends[row.batch] = max(ends.get(row.batch, 0), row.prefill_end_ns)
        events.append((row.arrival_ns, 1, "", row.request))
        events.append((row.first_token_ns, 2, "", row.request))
    events += [(end_ns, 0, batch, 0) for batch, end_ns in ends.items()]
    system = ServingSystem(job)
    plans: list[BatchPlan | FetchPlan | Resume] = []
    for time_ns, kind, batch, request in sorted(events):
        try:
            if kind == 0:
                plans += system.batch_done(time_ns, batch)
            elif kind == 1:
                plans += system.arrive(time_ns, requests[request])
            else:
                system.first_token(time_ns, request)
        except ValueError as error:
            raise NotReplayable(f"{error}, unlike in the run") from None
    batches = tuple(plan for plan in plans if isinstance(plan, BatchPlan))
    _check(batches, rows)
    return batches


def _check(plans: Iterable[BatchPlan], rows: Iterable[RequestRow]) -> None:
    made = {
        item.request: (plan.id, item.decode_rank, item.new_tokens, item.local_tokens, item.remote_tokens)
        for plan in plans
        for item in plan.requests
    }
    for row in rows:
        seen = (row.batch, row.decode_rank, row.new_tokens, row.local_tokens, row.remote_tokens)
        if made.get(row.request) != seen:
            raise NotReplayable(
                f"request {row.request} ran in batch {row.batch} with {row.new_tokens} tokens to compute;"
                f" told what happened, the serving system decides otherwise"
            )
