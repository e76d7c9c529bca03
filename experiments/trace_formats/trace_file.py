"""Reading trace files: what is there, in which format, and which rows of it are wanted.

Whatever the format, a row of a trace is a `TraceRow`. A module per format says how one is read.
"""

import enum
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from experiments.errors import UserError

AZURE_HEADER = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BURSTGPT_COLUMNS = ("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type")
"""The columns that every file of BurstGPT has; newer ones have more."""

COFLOW_HEADER = re.compile(r"\s*([0-9]{1,9})\s+([0-9]{1,9})\s*")
"""Racks and coflows of a trace in the format of the coflow benchmark."""

MAX_TOKENS = 16_777_216
"""More than any model's context: a larger count in a trace is a slip, not a prompt."""

MAX_S = 10**10
"""A time in a trace beyond three hundred years is a slip too."""

Row = TypeVar("Row")


class TraceFormat(enum.Enum):
    MOONCAKE = "mooncake"
    AZURE = "azure"
    BURSTGPT = "burstgpt"
    BAILIAN = "bailian"


class TraceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a trace. `time_ns` counts from the trace's own beginning, which may be any moment.

    `blocks` are ids of the prompt's full blocks, each standing for itself and all before it; None where the
    trace does not say what prompts are made of. `labels` are the columns that tell kinds of requests apart.
    """

    time_ns: int
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] | None
    labels: dict[str, str] = {}


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """How a format is read.

    `rows` goes over a file and raises `UserError` for the first line that is not right. `labels` are the
    columns that rows have as labels. `block_tokens` is the size of a block. `note` says what a user of such
    a trace has to know.
    """

    rows: Callable[[Path], Iterator[TraceRow]]
    block_tokens: int
    labels: tuple[str, ...] = ()
    note: str | None = None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without their ends, as `lines_of`."""
    return list(lines_of(path))


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file without their ends, one by one: a trace may be larger than memory.

    Raises `UserError` for a file that is missing, a directory, not readable, not text or empty.
    """
    empty = True
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                empty = empty and not line.strip()
                yield line.removesuffix("\n")
    except IsADirectoryError:
        raise UserError(f"{path}: this is a directory; workload.path names one trace file") from None
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such trace file (workload.path)") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file (UTF-8), so not a trace") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if empty:
        raise UserError(f"{path}: the trace file is empty")


def detect_format(path: Path) -> TraceFormat:
    """The format of a trace, from its first line. Raises `UserError` when it is none we know."""
    first = next(line for line in lines_of(path) if line.strip())
    if is_azure_header(first):
        return TraceFormat.AZURE
    if is_burstgpt_header(first):
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
        f"{path}, line 1: not the start of a trace we know: mooncake begins with a JSON object "
        f"that has hash_ids, bailian with one that has chat_id too, azure with the header "
        f"{','.join(AZURE_HEADER)}, burstgpt with one that has {','.join(BURSTGPT_COLUMNS)}"
    )


def columns_of(line: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in line.split(","))


def is_azure_header(line: str) -> bool:
    return columns_of(line) == AZURE_HEADER


def is_burstgpt_header(line: str) -> bool:
    return set(BURSTGPT_COLUMNS) <= set(columns_of(line))


def in_order(rows: Iterable[tuple[str, Row]], time_ns: Callable[[Row], int], name: str) -> Iterator[Row]:
    """`rows`, each with the words for its place, as long as they are sorted by time.

    Raises `UserError` for one before the row above it; `name` is what the file calls the time.
    """
    last = None
    for where, row in rows:
        now = time_ns(row)
        if last is not None and now < last:
            raise UserError(f"{where}: {name} is before that of the row above; a trace is sorted by time")
        last = now
        yield row


def take(rows: Iterable[Row], *, path: Path, requests: int, skip: int) -> list[Row]:
    """`requests` rows after the first `skip`; goes on to the end, so that every row is checked.

    Raises `UserError` when there are fewer.
    """
    left = iter(rows)
    skipped = sum(1 for _ in itertools.islice(left, skip))
    taken = list(itertools.islice(left, requests))
    if len(taken) < requests:
        after = f" after skipping {skip}" if skip else ""
        raise UserError(
            f"{path}: workload.requests asks for {requests} rows{after}, but the file has "
            f"{skipped + len(taken)}"
        )
    for _ in left:
        pass
    return taken


# --- the values of a row ----------------------------------------------------------------------------


def json_object(line: str, where: str) -> dict[str, Any]:
    """Raises `UserError` for what is none."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"{where}: not JSON") from None
    if not isinstance(data, dict):
        raise UserError(f"{where}: not a JSON object")
    return data


def json_value(row: dict[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise UserError(f"{where}: {key} is missing")
    return row[key]


def json_count(row: dict[str, Any], key: str, where: str, *, low: int, high: int) -> int:
    value = json_value(row, key, where)
    if type(value) is not int:
        raise UserError(f"{where}: {key} is {value!r}, not a whole number")
    if not low <= value <= high:
        raise UserError(f"{where}: {key} is {value}; allowed is {low} .. {high}")
    return value


def json_block_ids(row: dict[str, Any], where: str) -> list[int]:
    ids = json_value(row, "hash_ids", where)
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < 2**63 for i in ids):
        raise UserError(f"{where}: hash_ids is not a list of whole numbers from 0")
    return ids


def text_count(name: str, text: str, where: str, *, low: int) -> int:
    if not re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        raise UserError(f"{where}: {name} is {text!r}, not a whole number")
    value = int(text)
    if not low <= value <= MAX_TOKENS:
        raise UserError(f"{where}: {name} is {value}; allowed is {low} .. {MAX_TOKENS}")
    return value
