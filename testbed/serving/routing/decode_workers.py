"""The decode workers: how much waits for each, and which one a request gets."""

from collections.abc import Callable, Mapping

from controller.flow import PortId
from testbed.job import Job
from testbed.serving.cache.assignment import Assigned
from testbed.serving.routing.decode_choices import WorkerView, make_decode_choice
from testbed.serving.routing.traffic_ahead import TrafficAhead

Busy = Callable[[PortId], float]
"""Seconds that a port takes for all bytes that flows have left on it at this moment."""

Decided = Mapping[int, int]
"""The first rank of the decode worker of each request, by its id."""


class DecodeWorkers:
    """Gives each request a decode worker. With `follows`, `traffic` is told of the S3 that results.

    `decided` has the first rank of the worker of each request, if they are known already. Raises `ValueError`
    for an unknown decode choice, and for one that needs `busy` where there is none.
    """

    def __init__(
        self,
        job: Job,
        traffic: TrafficAhead,
        *,
        follows: bool,
        busy: Busy | None = None,
        decided: Decided | None = None,
    ) -> None:
        self._choice = make_decode_choice(job.serving)
        if self._choice.live and busy is None and decided is None:
            raise ValueError(
                f"decode choice {job.serving.decode_choice!r} has to know what is on the ports now"
            )
        self._busy = busy if self._choice.live else None
        self._decided = decided
        self._traffic = traffic
        self._follows = follows or (self._choice.ports and not self._choice.live)
        self._views = dict.fromkeys(job.placement.decode_workers, WorkerView(tokens=0))
        self._of: dict[int, tuple[tuple[int, ...], int]] = {}
        self._lost: set[tuple[int, ...]] = set()

    def lose(self, worker: tuple[int, ...]) -> list[int]:
        """Choose a worker no more. Returns its requests without a first token, which it keeps."""
        self._lost.add(worker)
        return [request for request, (ranks, _) in self._of.items() if ranks == worker]

    def restore(self, worker: tuple[int, ...]) -> None:
        self._lost.discard(worker)

    def choose(self, unit: str, item: Assigned) -> None:
        """Choose the worker of a request whose batch on `unit` is formed."""
        worker = self._chosen(unit, item)
        self._of[item.request.id] = worker, item.request.prompt_tokens
        self._add_tokens(worker, item.request.prompt_tokens)
        if self._follows:
            self._traffic.delivering(unit, item, worker)

    def _chosen(self, unit: str, item: Assigned) -> tuple[int, ...]:
        if self._decided is not None:
            first = self._decided[item.request.id]
            return next(worker for worker in self._views if worker[0] == first)
        open_to_choice = {worker: view for worker, view in self._views.items() if worker not in self._lost}
        if self._choice.ports:
            for worker, view in open_to_choice.items():
                ports_s = self._traffic.ports_s(unit, item, worker, self._busy)
                open_to_choice[worker] = WorkerView(tokens=view.tokens, ports_s=ports_s)
        return list(open_to_choice)[self._choice.choose(list(open_to_choice.values()))]

    def _add_tokens(self, worker: tuple[int, ...], tokens: int) -> None:
        self._views[worker] = WorkerView(tokens=self._views[worker].tokens + tokens)

    def of(self, request: int) -> tuple[int, ...]:
        """The ranks of the worker of a request that has one, and no first token yet."""
        return self._of[request][0]

    def first_token(self, request: int) -> None:
        """A request has its first token, or has failed."""
        worker, tokens = self._of.pop(request)
        self._add_tokens(worker, -tokens)
        self._traffic.delivered(request)
