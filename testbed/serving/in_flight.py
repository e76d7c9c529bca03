"""Where the requests of a run are, for people who watch it. Pure."""

from collections.abc import Collection, Mapping

from testbed.job import Request
from testbed.live import RequestsNow
from testbed.serving.story import RequestStory


class InFlight:
    """Keeps the requests without a first token, and counts those that met their SLO.

    A look at it takes time in proportion to the requests in flight, not to all.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._requests: dict[int, Request] = {}
        self._done = 0
        self._met = 0
        self._missed = 0

    def arrived(self, request: Request) -> None:
        self._requests[request.id] = request

    def first_token(self, request: int, now_ns: int) -> None:
        it = self._requests.pop(request)
        self._done += 1
        if not it.warmup:
            met = now_ns - it.arrival_ns <= it.slo_ns
            self._met += met
            self._missed += not met

    def failed(self, request: int) -> None:
        it = self._requests.pop(request)
        self._done += 1
        self._missed += not it.warmup

    def at(
        self, now_ns: int, stories: Mapping[int, RequestStory], running: Collection[str | None]
    ) -> RequestsNow:
        """Return where the requests are at `now_ns`. `running` are the batches that ranks work on."""
        queued = prefilling = decoding = overdue = 0
        for id, request in self._requests.items():
            story = stories.get(id)
            if story is None or story.plan is None:
                queued += 1
            elif story.plan.last and story.batch not in running:
                decoding += 1
            else:
                prefilling += 1
            overdue += not request.warmup and now_ns - request.arrival_ns > request.slo_ns
        return RequestsNow(
            total=self._total,
            queued=queued,
            prefilling=prefilling,
            decoding=decoding,
            done=self._done,
            met=self._met,
            missed=self._missed + overdue,
        )
