"""The decode workers: how much waits for each, and which one a request gets."""

from testbed.job import Job
from testbed.serving.cache.assignment import Assigned
from testbed.serving.routing.decode_choices import WorkerView, make_decode_choice
from testbed.serving.routing.traffic_ahead import TrafficAhead


class DecodeWorkers:
    """Gives each request a decode worker. With `follows`, `traffic` is told of the S3 that results.

    Raises `ValueError` for an unknown decode choice.
    """

    def __init__(self, job: Job, traffic: TrafficAhead, *, follows: bool) -> None:
        self._choice = make_decode_choice(job.serving)
        self._traffic = traffic
        self._follows = follows or self._choice.ports
        self._tokens = dict.fromkeys(job.placement.decode_workers, 0)
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
        workers = tuple(worker for worker in self._tokens if worker not in self._lost)
        views = [
            WorkerView(
                tokens=tokens,
                ports_s=self._traffic.ports_s(unit, item, worker) if self._choice.ports else (),
            )
            for worker, tokens in self._tokens.items()
            if worker not in self._lost
        ]
        worker = workers[self._choice.choose(views)]
        self._of[item.request.id] = worker, item.request.prompt_tokens
        self._tokens[worker] += item.request.prompt_tokens
        if self._follows:
            self._traffic.delivering(unit, item, worker)

    def of(self, request: int) -> tuple[int, ...]:
        """The ranks of the worker of a request that has one, and no first token yet."""
        return self._of[request][0]

    def first_token(self, request: int) -> None:
        """A request has its first token, or has failed."""
        worker, tokens = self._of.pop(request)
        self._tokens[worker] -= tokens
        self._traffic.delivered(request)
