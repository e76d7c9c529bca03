"""The trace formats by name: the reader of each, and finding the format of a file."""

import enum
import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import msgspec

from experiments.errors import UserError
from experiments.trace_formats import (
    aibrix,
    azure,
    bailian,
    burstgpt,
    llmservingsim,
    mooncake,
    native,
    sharegpt,
    splitwise,
    vidur,
)
from experiments.trace_formats.rows import Reader
from experiments.trace_formats.text_file import lines_of
from experiments.trace_formats.values import columns_of

COFLOW_HEADER = re.compile(r"\s*([0-9]{1,9})\s+([0-9]{1,9})\s*")
"""Numbers of racks and coflows: the first line of a trace in the format of the coflow benchmark."""


class TraceFormat(enum.Enum):
    MOONCAKE = "mooncake"
    MOONCAKE_DELTA = "mooncake_delta"
    AZURE = "azure"
    BURSTGPT = "burstgpt"
    BAILIAN = "bailian"
    VIDUR = "vidur"
    SPLITWISE = "splitwise"
    LLMSERVINGSIM = "llmservingsim"
    AIBRIX = "aibrix"
    SHAREGPT = "sharegpt"
    REQUESTS = "requests"


_READERS: dict[TraceFormat, Reader] = {
    TraceFormat.AZURE: azure.READER,
    TraceFormat.BURSTGPT: burstgpt.READER,
    TraceFormat.BAILIAN: bailian.READER,
    TraceFormat.VIDUR: vidur.READER,
    TraceFormat.SPLITWISE: splitwise.READER,
    TraceFormat.LLMSERVINGSIM: llmservingsim.READER,
    TraceFormat.AIBRIX: aibrix.READER,
    TraceFormat.SHAREGPT: sharegpt.READER,
}
"""Those that are the same for every file."""

_READERS_OF: dict[TraceFormat, Callable[[Path], Reader]] = {
    TraceFormat.MOONCAKE: mooncake.reader_of,
    TraceFormat.MOONCAKE_DELTA: partial(mooncake.reader_of, added=True),
    TraceFormat.REQUESTS: native.reader_of,
}
"""Those that depend on the file."""

_HEADERS = (
    (azure.HEADER, TraceFormat.AZURE),
    (burstgpt.COLUMNS, TraceFormat.BURSTGPT),
    (vidur.COLUMNS, TraceFormat.VIDUR),
    (splitwise.COLUMNS, TraceFormat.SPLITWISE),
    (llmservingsim.COLUMNS, TraceFormat.LLMSERVINGSIM),
)
"""The columns by which a file of cells is recognised. It may have others beside them, in any order."""

_KEYS: tuple[tuple[tuple[str, ...], TraceFormat], ...] = (
    (("chat_id", "parent_chat_id", "turn"), TraceFormat.BAILIAN),
    ((llmservingsim.SESSION, llmservingsim.COLUMNS[0]), TraceFormat.LLMSERVINGSIM),
    (("requests",), TraceFormat.AIBRIX),
    ((*mooncake.PROMPT_KEYS, *mooncake.TIMES, "hash_ids"), TraceFormat.MOONCAKE),
    (sharegpt.KEYS, TraceFormat.SHAREGPT),
)
"""The keys by any of which a file of JSON is recognised, in this order."""


def reader_of(path: Path, format: TraceFormat) -> Reader:
    """Return the reader of the file at `path`. Its note names the columns or keys of the first row that are
    not read. Raises `UserError` for a file that cannot be read, and for an invalid header."""
    reader = _READERS_OF[format](path) if format in _READERS_OF else _READERS[format]
    named = filter(None, _named(_first_line(path)))  # pandas writes its index below no name
    unread = [key for key in named if key not in (*reader.keys, *reader.labels)]
    if not unread:
        return reader
    notes = (*filter(None, [reader.note]), f"not read: {', '.join(unread)}")
    return msgspec.structs.replace(reader, note="; ".join(notes))


def detect_format(path: Path) -> TraceFormat:
    """Return the format of a trace, judged by its first line. Raises `UserError` for an unknown one."""
    first = _first_line(path)
    found = _format_of(first)
    if found is not None:
        return found
    if COFLOW_HEADER.fullmatch(first):
        raise UserError(f"{path}, line 1: a trace of coflows, which needs workload.kind: coflows")
    names = ", ".join(format.value for format in TraceFormat)
    headers = "; ".join(f"{format.value}: {','.join(header)}" for header, format in _HEADERS)
    keys = "; ".join(f"{format.value}: {' or '.join(found)}" for found, format in _KEYS)
    raise UserError(
        f"{path}, line 1: not the start of a known trace ({names}): files of cells are known by the columns "
        f"of their header ({headers}), and files of JSON by a key of the first object ({keys}; "
        f'{TraceFormat.REQUESTS.value}: "format": "{native.FORMAT}")'
    )


def _first_line(path: Path) -> str:
    return next(line for line in lines_of(path) if line.strip())


def _format_of(first: str) -> TraceFormat | None:
    if first.lstrip().startswith("["):
        return TraceFormat.SHAREGPT
    row = _object(first)
    if row is None:
        columns = set(columns_of(first))
        return next((format for header, format in _HEADERS if set(header) <= columns), None)
    if row.get("format") == native.FORMAT:
        return TraceFormat.REQUESTS
    return next((format for keys, format in _KEYS if any(key in row for key in keys)), None)


def _named(first: str) -> Iterable[str]:
    """Return the columns or keys that the first line of a file names."""
    if first.lstrip().startswith("["):
        return ()
    row = _object(first)
    return columns_of(first) if row is None else row


def _object(line: str) -> dict[str, object] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
