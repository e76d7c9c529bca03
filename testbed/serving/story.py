"""What became of each request, as the results tell it. Shared by the fabrics."""

from dataclasses import dataclass

from testbed.job import Request
from testbed.record import RequestRow
from workers.plan import RequestPlan


@dataclass(slots=True)
class RequestStory:
    """In model time; None for what has not happened."""

    plan: RequestPlan | None = None
    batch: str | None = None
    unit: str | None = None
    start_ns: int | None = None
    prefill_end_ns: int | None = None
    p2d_end_ns: int | None = None
    first_token_ns: int | None = None


def request_row(request: Request, story: RequestStory) -> RequestRow:
    plan = story.plan
    first = story.first_token_ns
    return RequestRow(
        request=request.id,
        slo_class=request.slo_class,
        status="completed" if first is not None else "failed",
        unit=story.unit,
        batch=story.batch,
        decode_rank=plan.decode_rank if plan else None,
        prompt_tokens=request.prompt_tokens,
        new_tokens=plan.new_tokens if plan else 0,
        local_tokens=plan.local_tokens if plan else 0,
        remote_tokens=plan.remote_tokens if plan else 0,
        arrival_ns=request.arrival_ns,
        start_ns=story.start_ns,
        prefill_end_ns=story.prefill_end_ns,
        p2d_end_ns=story.p2d_end_ns,
        first_token_ns=first,
        ttft_ns=None if first is None else first - request.arrival_ns,
        slo_ns=request.slo_ns,
        unloaded_ttft_ns=request.unloaded_ns,
    )
