"""Single rows of a record with sensible fields. A test changes those that it is about."""

from typing import Any

from controller.flow import Level, Stage
from testbed.record import FlowRow, RequestRow, RequestStatus, SpanRow
from workers.spans import SpanKind

MS = 1_000_000


def flow_row(**changes: Any) -> FlowRow:
    """An S3 flow of 1 MB from rank 0 on h1 to rank 8 on h9, with the given fields changed."""
    fields: dict[str, Any] = {
        "id": "f",
        "stage": Stage.P2D,
        "src": 0,
        "dst": 8,
        "src_server": "h1",
        "dst_server": "h9",
        "size_bytes": 1_000_000,
        "batch": None,
        "request": None,
        "layer": None,
        "coflow": None,
        "deadline_ns": None,
        "submit_ns": 0,
        "permit_ns": 0,
        "lane_wait_ns": 0,
        "finish_ns": 1,
        "level_first": Level.P3,
        "level_last": Level.P3,
        "promotions": 0,
        "path": ("h1->s1", "s1->h9"),
        "verified": None,
    }
    return FlowRow(**(fields | changes))


def request_row(**changes: Any) -> RequestRow:
    """A completed request with a TTFT of 100 ms and an SLO of 100 ms, with fields changed."""
    fields: dict[str, Any] = {
        "request": 0,
        "slo_class": "default",
        "status": "completed",
        "unit": "p0",
        "batch": "b0",
        "decode_rank": 8,
        "prompt_tokens": 10,
        "new_tokens": 10,
        "local_tokens": 0,
        "remote_tokens": 0,
        "arrival_ns": 0,
        "start_ns": 10 * MS,
        "prefill_end_ns": 70 * MS,
        "p2d_end_ns": 90 * MS,
        "first_token_ns": 100 * MS,
        "ttft_ns": 100 * MS,
        "slo_ns": 100 * MS,
        "unloaded_ttft_ns": 40 * MS,
    }
    fields |= changes
    fields["status"] = RequestStatus(fields["status"])
    return RequestRow(**fields)


def span_row(rank: int, kind: str, start_ms: int, end_ms: int, **changes: Any) -> SpanRow:
    """A span of batch b0, layer 0, in milliseconds."""
    fields: dict[str, Any] = {"label": "", "batch": "b0", "layer": 0} | changes
    return SpanRow(rank=rank, kind=SpanKind(kind), start_ns=start_ms * MS, end_ns=end_ms * MS, **fields)
