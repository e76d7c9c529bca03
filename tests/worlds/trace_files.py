"""Small trace files: lines with sensible values. A test changes those that it is about."""

import json
from pathlib import Path
from typing import Any

from experiments.trace_formats.formats import TraceFormat, detect_format
from experiments.workloads import from_trace
from experiments.workloads.workload import Workload

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"


def trace(folder: Path, *lines: str) -> Path:
    path = folder / "trace"
    path.write_text("\n".join(lines) + "\n")
    return path


def load(path: Path, requests: int = 1, *, format: TraceFormat | None = None, **keys: Any) -> Workload:
    """Read `requests` of the trace. Its format is detected unless one is given."""
    return from_trace.load(path, format or detect_format(path), requests=requests, **keys)


def mooncake(timestamp: object = 0, tokens: object = 1000, output: object = 5, ids: object = (0, 1)) -> str:
    ids = list(ids) if isinstance(ids, tuple) else ids
    return json.dumps(
        {"timestamp": timestamp, "input_length": tokens, "output_length": output, "hash_ids": ids}
    )


def bailian(**changes: object) -> str:
    row: dict[str, object] = {
        "chat_id": 1,
        "parent_chat_id": -1,
        "timestamp": 0.0,
        "input_length": 40,
        "output_length": 5,
        "type": "text",
        "turn": 1,
        "hash_ids": [7, 8, 9],
    }
    return json.dumps({key: value for key, value in (row | changes).items() if value is not None})
