"""The trace formats by name: the reader of each, and finding the format of a file."""

import enum
import json
import re
from pathlib import Path

from experiments.errors import UserError
from experiments.trace_formats import azure, bailian, burstgpt, mooncake
from experiments.trace_formats.rows import Reader
from experiments.trace_formats.text_file import lines_of

COFLOW_HEADER = re.compile(r"\s*([0-9]{1,9})\s+([0-9]{1,9})\s*")
"""Numbers of racks and coflows: the first line of a trace in the format of the coflow benchmark."""


class TraceFormat(enum.Enum):
    MOONCAKE = "mooncake"
    AZURE = "azure"
    BURSTGPT = "burstgpt"
    BAILIAN = "bailian"


READERS: dict[TraceFormat, Reader] = {
    TraceFormat.MOONCAKE: mooncake.READER,
    TraceFormat.AZURE: azure.READER,
    TraceFormat.BURSTGPT: burstgpt.READER,
    TraceFormat.BAILIAN: bailian.READER,
}


def detect_format(path: Path) -> TraceFormat:
    """Return the format of a trace, judged by its first line. Raises `UserError` for an unknown one."""
    first = next(line for line in lines_of(path) if line.strip())
    if azure.is_header(first):
        return TraceFormat.AZURE
    if burstgpt.is_header(first):
        return TraceFormat.BURSTGPT
    try:
        row = json.loads(first)
    except ValueError:
        row = None
    if isinstance(row, dict) and "hash_ids" in row:
        return TraceFormat.BAILIAN if "chat_id" in row else TraceFormat.MOONCAKE
    if COFLOW_HEADER.fullmatch(first):
        raise UserError(f"{path}, line 1: a trace of coflows, which needs workload.kind: coflows")
    raise UserError(
        f"{path}, line 1: not the start of a known trace: mooncake begins with a JSON object "
        f"that has hash_ids, bailian with one that has chat_id too, azure with the header "
        f"{','.join(azure.HEADER)}, burstgpt with one that has {','.join(burstgpt.COLUMNS)}"
    )
