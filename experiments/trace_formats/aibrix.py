"""The format of AIBrix's benchmark workloads (https://github.com/vllm-project/aibrix).

JSON lines, each the requests that are sent at one moment, in ms from the start:

    {"timestamp": 19, "requests": [{"prompt": "...", "prompt_length": 101, "output_length": null,
                                    "session_id": 0}, ...]}

The client sends each request at its time, whatever became of earlier ones of its session.
"""

from collections.abc import Iterator
from typing import Any

from controller.units import NS_PER_MS
from experiments.errors import UserError
from experiments.trace_formats.lines import json_rows
from experiments.trace_formats.rows import BLOCK_TOKENS, Guess, Reader, TraceRow
from experiments.trace_formats.values import estimated_tokens, json_count, json_time_ns


def _rows(data: dict[str, Any], where: str) -> Iterator[TraceRow]:
    time_ns = json_time_ns(data, "timestamp", where, unit_ns=NS_PER_MS)
    requests = data.get("requests")
    if not isinstance(requests, list) or not all(isinstance(one, dict) for one in requests):
        raise UserError(f"{where}: requests is not a list of JSON objects")
    for number, one in enumerate(requests):
        at = f"{where}: requests[{number}]"
        guesses: list[Guess] = []
        if one.get("prompt_length") is None and isinstance(one.get("prompt"), str):
            prompt = estimated_tokens(one["prompt"])
            guesses.append(Guess.PROMPT)
        else:
            prompt = json_count(one, "prompt_length", at, low=1)
        if one.get("output_length") is None:
            output = 1
            guesses.append(Guess.OUTPUT)
        else:
            output = json_count(one, "output_length", at, low=0)
        yield TraceRow(
            time_ns=time_ns,
            prompt_tokens=prompt,
            output_tokens=output,
            blocks=None,
            guesses=tuple(guesses),
        )


READER = Reader(
    placed=lambda path: json_rows(path, _rows),
    time="timestamp",
    keys=("timestamp", "requests"),
    block_tokens=BLOCK_TOKENS,
    note="requests of one session_id do not wait for each other",
)
