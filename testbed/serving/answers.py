"""When the answer to a request is complete, for the turns that wait for it. Pure.

With `serving.decode_batch`, an answer is complete with its last token, as the steps of its decode worker
have it (`testbed.serving.decoding`). Otherwise only first tokens are modelled, and the first token stands
for the answer.
"""

from testbed.job import Job, Request
from testbed.serving.decoding import DecodeWorker, Decoding


class Answers:
    """Tells which of the answers that are waited for are complete.

    Nothing is computed for a job in which no request waits for another. If the report of a first token is
    late, as it can be on the emulated fabric, the request joins the next step that has not ended.
    """

    def __init__(self, job: Job) -> None:
        self._awaited = {request.after for request in job.requests if request.after is not None}
        self._most = job.serving.decode_batch if self._awaited else None
        self._job = job
        self._workers: dict[int, DecodeWorker] = {}
        self._dues: dict[int, int] = {}
        self.due_ns: int | None = None
        """When to call `complete` next; None while no answer that is waited for is under way."""

    def first_token(self, request: Request, decode_rank: int, now_ns: int) -> dict[int, int]:
        """A request has its first token. Returns when its answer is complete, by id, if it is already."""
        if self._most is None or request.output_tokens <= 1:
            return {request.id: now_ns}
        worker = self._workers.get(decode_rank)
        if worker is None:
            worker = DecodeWorker(model=self._job.model, gpu=self._job.gpu, most=self._most)
            self._workers[decode_rank] = worker
        worker.join(
            Decoding(
                request=request.id,
                first_token_ns=now_ns,
                prompt_tokens=request.prompt_tokens,
                output_tokens=request.output_tokens,
            )
        )
        self._plan(decode_rank)
        return {}

    def complete(self, now_ns: int) -> dict[int, int]:
        """Return the answers that are complete by now and were not before: when, by the request's id."""
        if self.due_ns is None or self.due_ns > now_ns:
            return {}
        ends: dict[int, int] = {}
        for rank in [rank for rank, due_ns in self._dues.items() if due_ns <= now_ns]:
            ends |= self._workers[rank].advance(now_ns)
            self._awaited -= ends.keys()
            self._plan(rank)
        return ends

    def _plan(self, rank: int) -> None:
        """Decide when the steps of a decode worker have to be looked at next."""
        self._dues.pop(rank, None)
        due_ns = self._workers[rank].earliest_end_ns(self._awaited)
        if due_ns is not None:
            self._dues[rank] = due_ns
        self.due_ns = min(self._dues.values(), default=None)
