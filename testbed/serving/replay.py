"""Forms the batches of a run again, so that another fabric can run the same flows.

Which requests share a batch depends on when earlier batches end. So two fabrics form different batches from
the same requests, and from then on their flows cannot be compared one by one. But the serving system is a
function of its events. Given the events of a run, in their order, it forms the batches of that run again.
"""

import enum
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from testbed.faults import losses_of
from testbed.job import Job, Request
from testbed.record import CacheRow, RequestRow
from testbed.serving.routing.decode_choices import reads_ports_now
from testbed.serving.system import ServingSystem
from workers.plan import BatchPlan, FetchPlan, Resume


class PlannedBatches:
    """Starts each batch of `plans` when its requests have arrived and its unit has room for it.

    A unit runs at most `at_once[unit]` batches, by default one.

    A unit starts its batches in the order of `plans`.
    """

    def __init__(self, plans: Iterable[BatchPlan], *, at_once: Mapping[str, int] | None = None) -> None:
        self._to_come: dict[str, deque[BatchPlan]] = {}
        for plan in plans:
            self._to_come.setdefault(plan.unit, deque()).append(plan)
        self._at_once = at_once or {}
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
        """The batch goes on: only planned batches run."""
        return [Resume(batch=batch_id)]

    def first_token(self, now_ns: int, request_id: int) -> None:
        """No planned batch depends on it."""

    def describe(self) -> str:
        return f"{sum(map(len, self._to_come.values()))} batches to come"

    def caches(self) -> tuple[CacheRow, ...]:
        """Empty: the plans say what is reused, and nothing is cached here."""
        return ()

    def _start(self, unit: str) -> list[BatchPlan]:
        waiting = self._to_come[unit]
        started: list[BatchPlan] = []
        while waiting and list(self._running.values()).count(unit) < self._at_once.get(unit, 1):
            if not all(item.request in self._arrived for item in waiting[0].requests):
                break
            started.append(waiting.popleft())
            self._running[started[-1].id] = unit
        return started


class _Event(enum.IntEnum):
    """In the order in which a run takes them in at equal times."""

    BATCH_DONE = 0
    ARRIVAL = 1
    FIRST_TOKEN = 2


class NotReplayable(ValueError):
    """The batches of a run cannot be formed again from its events. The message says why."""


def plans_of(job: Job, rows: Sequence[RequestRow]) -> tuple[BatchPlan, ...]:
    """The batches of a run of `job`, in the order in which it formed them. `rows` are its requests.

    In the run, the serving system learned of the end of a batch a moment after its last rank had ended.
    Events between these two moments are in the wrong order here, which can lead to another batch.

    Raises `NotReplayable` if it does; for requests that were not completed; for split prompts and
    preemption; and for reused KV whose fetch started while its request was queued, because a replay has only
    the plans of batches.
    """
    if losses_of(job.faults):
        raise NotReplayable("units or decode workers were lost (faults), and a replay loses none")
    if job.serving.fetch_early:
        raise NotReplayable(
            "S1 was fetched while requests were queued (serving.fetch), and a replay has no plans for that"
        )
    if job.serving.chunk_tokens is not None or job.serving.preempt_layers is not None:
        raise NotReplayable(
            "a run does not record all that decided on split prompts and preempted batches"
            " (serving.chunk_tokens, serving.preempt_layers)"
        )
    requests = {request.id: request for request in job.requests}
    ends: dict[str, int] = {}
    events: list[tuple[int, _Event, str, int]] = []
    for row in rows:
        if row.batch is None or row.prefill_end_ns is None or row.first_token_ns is None:
            raise NotReplayable(f"request {row.request} was not completed")
        if row.request not in requests:
            raise NotReplayable(f"request {row.request} is not one of this scenario and seed")
        ends[row.batch] = max(ends.get(row.batch, 0), row.prefill_end_ns)
        events.append((row.arrival_ns, _Event.ARRIVAL, "", row.request))
        events.append((row.first_token_ns, _Event.FIRST_TOKEN, "", row.request))
    events += [(end_ns, _Event.BATCH_DONE, batch, 0) for batch, end_ns in ends.items()]
    # What a decode choice saw of the network is not in the rows, but what it chose is.
    live = reads_ports_now(job.serving.decode_choice)
    chosen = {row.request: row.decode_rank for row in rows if row.decode_rank is not None}
    system = ServingSystem(job, decided=chosen if live else None)
    plans: list[BatchPlan | FetchPlan | Resume] = []
    for time_ns, kind, batch, request in sorted(events):
        try:
            if kind is _Event.BATCH_DONE:
                plans += system.batch_done(time_ns, batch)
            elif kind is _Event.ARRIVAL:
                # When a later turn of a conversation arrives depends on the run.
                arrived = msgspec.structs.replace(requests[request], arrival_ns=time_ns)
                plans += system.arrive(time_ns, arrived)
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
                f" given the events of the run, the serving system decides otherwise"
            )
