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
        self._tokens = dict.fromkeys(job.placement.decode, 0)
        self._of: dict[int, tuple[int, int]] = {}

    def choose(self, unit: str, item: Assigned) -> None:
        """Choose the worker of a request whose batch on `unit` is formed."""
        ranks = tuple(self._tokens)
        views = [
            WorkerView(
                tokens=tokens,
                ports_s=self._traffic.ports_s(unit, item, rank) if self._choice.ports else (),
            )
            for rank, tokens in self._tokens.items()
        ]
        rank = ranks[self._choice.choose(views)]
        self._of[item.request.id] = rank, item.request.prompt_tokens
        self._tokens[rank] += item.request.prompt_tokens
        if self._follows:
            self._traffic.delivering(unit, item, rank)

    def of(self, request: int) -> int:
        """The rank of the worker of a request that has one, and no first token yet."""
        return self._of[request][0]

    def first_token(self, request: int) -> None:
        rank, tokens = self._of.pop(request)
        self._tokens[rank] -= tokens
        self._traffic.delivered(request)
