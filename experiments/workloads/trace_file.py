"""Reading trace files: what is there, in which format, and which rows of it are wanted."""

import enum
import json
import re
from pathlib import Path
from typing import TypeVar

from experiments.errors import UserError

AZURE_HEADER = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
COFLOW_HEADER = re.compile(r"\s*([0-9]{1,9})\s+([0-9]{1,9})\s*")
"""Racks and coflows of a trace in the format of the coflow benchmark."""

MAX_TOKENS = 16_777_216
"""More than any model's context: a larger count in a trace is a slip, not a prompt."""

Row = TypeVar("Row")


class TraceFormat(enum.Enum):
    MOONCAKE = "mooncake"
    AZURE = "azure"


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without their ends.

    Raises `UserError` for a file that is missing, a directory, not readable, not text or empty.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except IsADirectoryError:
        raise UserError(f"{path}: this is a directory; workload.path names one trace file") from None
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such trace file (workload.path)") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file (UTF-8), so not a trace") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not any(line.strip() for line in lines):
        raise UserError(f"{path}: the trace file is empty")
    return lines


def detect_format(path: Path) -> TraceFormat:
    """The format of a trace, from its first line. Raises `UserError` when it is none we know."""
    first = next(line for line in read_lines(path) if line.strip())
    if is_azure_header(first):
        return TraceFormat.AZURE
    try:
        row = json.loads(first)
    except ValueError:
        row = None
    if isinstance(row, dict) and "hash_ids" in row:
        return TraceFormat.MOONCAKE
    if COFLOW_HEADER.fullmatch(first):
        raise UserError(f"{path}, line 1: a trace of coflows, which needs workload.kind: coflows")
    raise UserError(
        f"{path}, line 1: not the start of a trace we know: mooncake begins with a JSON object "
        f"that has hash_ids, azure with the header {','.join(AZURE_HEADER)}"
    )


def is_azure_header(line: str) -> bool:
    return tuple(name.strip() for name in line.split(",")) == AZURE_HEADER


def take(rows: list[Row], *, path: Path, requests: int, skip: int) -> list[Row]:
    """`requests` rows after the first `skip`. Raises `UserError` when there are fewer."""
    if skip + requests > len(rows):
        after = f" after skipping {skip}" if skip else ""
        raise UserError(
            f"{path}: workload.requests asks for {requests} rows{after}, but the file has {len(rows)}"
        )
    return rows[skip : skip + requests]
