"""The columns of the six result tables and their types. docs/reference/results.md explains them."""

from typing import Any, Final

import pyarrow as pa

_TEXT: Final = pa.string()
COUNT: Final = pa.int64()
_NUMBER: Final = pa.float64()
_RANK: Final = pa.int32()
_LEVEL: Final = pa.int8()


def _schema(required: dict[str, Any], optional: dict[str, Any] | None = None) -> pa.Schema:
    fields = [pa.field("policy", _TEXT, nullable=False)]
    fields += [pa.field(name, kind, nullable=False) for name, kind in required.items()]
    fields += [pa.field(name, kind) for name, kind in (optional or {}).items()]
    return pa.schema(fields)


SCHEMAS: Final[dict[str, pa.Schema]] = {
    "requests": _schema(
        {
            "request": COUNT,
            "slo_class": _TEXT,
            "status": _TEXT,
            "prompt_tokens": COUNT,
            "new_tokens": COUNT,
            "local_tokens": COUNT,
            "remote_tokens": COUNT,
            "arrival_ns": COUNT,
            "slo_ns": COUNT,
            "unloaded_ttft_ns": COUNT,
            "warmup": pa.bool_(),
            "earlier_batches": pa.list_(_TEXT),
            "output_tokens": COUNT,
        },
        {
            "unit": _TEXT,
            "batch": _TEXT,
            "decode_rank": _RANK,
            "start_ns": COUNT,
            "prefill_end_ns": COUNT,
            "p2d_end_ns": COUNT,
            "first_token_ns": COUNT,
            "ttft_ns": COUNT,
            "last_token_ns": COUNT,
            "times_pruned": COUNT,
            "ended_pruned": pa.bool_(),
            "recomputed_tokens": COUNT,
            "fetch_estimate_ns": COUNT,
            "recompute_estimate_ns": COUNT,
            "lost_to": _TEXT,
            "moved_by": pa.list_(_TEXT),
            "token": COUNT,
            "expected_token": COUNT,
            "token_gap": _NUMBER,
            "logit_error": _NUMBER,
            "kv_error": _NUMBER,
            "kv_bytes": COUNT,
        },
    ),
    "flows": _schema(
        {
            "id": _TEXT,
            "stage": _TEXT,
            "src": _RANK,
            "dst": _RANK,
            "src_server": _TEXT,
            "size_bytes": COUNT,
            "submit_ns": COUNT,
            "permit_ns": COUNT,
            "lane_wait_ns": COUNT,
            "finish_ns": COUNT,
            "level_first": _LEVEL,
            "level_last": _LEVEL,
            "promotions": _RANK,
            "path": pa.list_(_TEXT),
        },
        {
            "dst_server": _TEXT,
            "batch": _TEXT,
            "request": COUNT,
            "layer": _RANK,
            "coflow": _TEXT,
            "deadline_ns": COUNT,
            "verified": pa.bool_(),
        },
    ),
    "decisions": _schema(
        {"time_ns": COUNT, "flow": _TEXT, "level_to": _LEVEL, "reason": _TEXT},
        {"level_from": _LEVEL},
    ),
    "spans": _schema(
        {"rank": _RANK, "kind": _TEXT, "label": _TEXT, "start_ns": COUNT, "end_ns": COUNT},
        {"batch": _TEXT, "layer": _RANK},
    ),
    "links": _schema(
        {
            "time_ns": COUNT,
            "port": _TEXT,
            "level": _LEVEL,
            "sent_wire_bytes": COUNT,
            "backlog_wire_bytes": COUNT,
            "drops": COUNT,
        }
    ),
    "progress": _schema({"time_ns": COUNT, "flow": _TEXT, "received_bytes": COUNT}),
}
