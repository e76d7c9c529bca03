"""What became of each request, as the results record it. All fabrics share this."""

from dataclasses import dataclass

from testbed.job import Request
from testbed.record import RequestRow, RequestStatus
from workers.plan import BatchPlan, RequestPlan


@dataclass(slots=True)
class RequestStory:
    """What has happened to a request, in model time; None for what has not happened yet.

    If the prompt is split, `plan` and `batch` are those of the last part so far, `first` is the plan of the
    first part, and `earlier` are the batches before the last. Prefill is then from the start of the first
    part to the end of the last.
    """

    plan: RequestPlan | None = None
    first: RequestPlan | None = None
    earlier: tuple[str, ...] = ()
    new_tokens: int = 0
    batch: str | None = None
    unit: str | None = None
    start_ns: int | None = None
    prefill_end_ns: int | None = None
    p2d_end_ns: int | None = None
    first_token_ns: int | None = None
    lost_to: str | None = None
    moved_by: tuple[str, ...] = ()

    def planned(self, request: RequestPlan, plan: BatchPlan) -> None:
        """The request, or a part of it, is in the batch `plan`."""
        if self.batch is None:
            self.first = request
        else:
            self.earlier += (self.batch,)
        self.plan, self.batch, self.unit = request, plan.id, plan.unit
        self.new_tokens += request.new_tokens

    def began(self, now_ns: int) -> None:
        """A batch of the request has begun. The earliest start counts: that of the first part."""
        self.start_ns = now_ns if self.start_ns is None else min(self.start_ns, now_ns)


def request_row(
    request: Request, story: RequestStory, *, times_pruned: int, ended_pruned: bool
) -> RequestRow:
    plan, origin = story.plan, story.first
    first = story.first_token_ns
    return RequestRow(
        request=request.id,
        slo_class=request.slo_class,
        status=RequestStatus.FAILED if first is None else RequestStatus.COMPLETED,
        unit=story.unit,
        batch=story.batch,
        decode_rank=plan.decode_rank if plan else None,
        prompt_tokens=request.prompt_tokens,
        new_tokens=story.new_tokens,
        local_tokens=origin.local_tokens if origin else 0,
        remote_tokens=origin.remote_tokens if origin else 0,
        recomputed_tokens=origin.recomputed_tokens if origin else 0,
        fetch_estimate_ns=origin.fetch_estimate_ns if origin else None,
        recompute_estimate_ns=origin.recompute_estimate_ns if origin else None,
        arrival_ns=request.arrival_ns,
        start_ns=story.start_ns,
        prefill_end_ns=story.prefill_end_ns,
        p2d_end_ns=story.p2d_end_ns,
        first_token_ns=first,
        ttft_ns=None if first is None else first - request.arrival_ns,
        slo_ns=request.slo_ns,
        unloaded_ttft_ns=request.unloaded_ns,
        warmup=request.warmup,
        earlier_batches=story.earlier,
        output_tokens=request.output_tokens,
        times_pruned=times_pruned,
        ended_pruned=ended_pruned,
        lost_to=story.lost_to,
        moved_by=story.moved_by,
    )
