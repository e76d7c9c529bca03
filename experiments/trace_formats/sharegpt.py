"""Files of texts: ShareGPT's conversations, and what vLLM's benchmarks derive from them.

A JSON array, or JSON lines, of objects of any of these shapes:

    {"id": "...", "conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}, ...]}
    {"id": "...", "messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    {"prompt": "...", "completion": "..."}   or   {"prompt": "...", "output_tokens": 20}

As in vLLM's benchmark of ShareGPT, a request is the beginning of a conversation, up to its first answer.
Later turns are left out, because the file does not say how long people pause. There are no times and no
lengths in tokens, so arrivals have to be drawn, and lengths are estimated.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.trace_formats.lines import json_array_rows, json_rows
from experiments.trace_formats.rows import BLOCK_TOKENS, Guess, PlacedRow, Reader, TraceRow
from experiments.trace_formats.text_file import lines_of
from experiments.trace_formats.values import estimated_tokens, json_count

KEYS = ("conversations", "messages", "prompt")
_SAYS = {"conversations": ("from", "value"), "messages": ("role", "content")}
_ANSWERS = ("gpt", "assistant", "chatgpt", "bing", "bard", "model")


def _rows(data: dict[str, Any], where: str) -> Iterator[TraceRow]:
    key = next((key for key in KEYS if key in data), None)
    if key is None:
        raise UserError(
            f"{where}: none of {', '.join(KEYS)} (other traces have a JSON object per line, not an array)"
        )
    if key == "prompt":
        yield _pair(data, where)
        return
    who, what = _SAYS[key]
    said: list[str] = []
    for number, message in enumerate(data[key] if isinstance(data[key], list) else ()):
        if not isinstance(message, dict) or not isinstance(message.get(what), str):
            raise UserError(f"{where}: {key}[{number}] has no text as its {what!r}")
        if message.get(who) in _ANSWERS:
            # A conversation that begins with an answer, or has none, is no request.
            if said:
                yield _row("".join(said), estimated_tokens(message[what]))
            return
        said.append(message[what])


def _pair(data: dict[str, Any], where: str) -> TraceRow:
    if not isinstance(data["prompt"], str):
        raise UserError(f"{where}: prompt is not a text")
    if isinstance(data.get("completion"), str):
        return _row(data["prompt"], estimated_tokens(data["completion"]))
    if data.get("output_tokens") is not None:
        return _row(data["prompt"], json_count(data, "output_tokens", where, low=0))
    return _row(data["prompt"], None)


def _row(prompt: str, output_tokens: int | None) -> TraceRow:
    return TraceRow(
        time_ns=None,
        prompt_tokens=estimated_tokens(prompt),
        output_tokens=1 if output_tokens is None else output_tokens,
        blocks=None,
        guesses=(Guess.PROMPT, Guess.OUTPUT) if output_tokens is None else (Guess.PROMPT,),
    )


def _placed(path: Path) -> Iterator[PlacedRow]:
    first = next(line for line in lines_of(path) if line.strip())
    rows = json_array_rows if first.lstrip().startswith("[") else json_rows
    return rows(path, _rows)


READER = Reader(
    placed=_placed,
    time="a time",
    keys=("id", *KEYS, "completion", "output_tokens"),
    block_tokens=BLOCK_TOKENS,
    note="of a conversation, only what comes before its first answer is a request, and "
    "conversations without one are left out",
)
