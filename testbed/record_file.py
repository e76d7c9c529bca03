"""A record in a file, from which it comes back equal: what a process leaves for another one.

The file has the blocks of all tables of rows, then an index of them with all other values of the record, and
the size of the index in its last eight bytes.
"""

import os
import weakref
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from controller.flow import Decision
from testbed.columns import ColumnSpool, blocks_of
from testbed.faults import Fault
from testbed.record import (
    CacheRow,
    Fidelity,
    FlowOrder,
    FlowRow,
    LinkSample,
    ProgressRow,
    RequestRow,
    RunRecord,
    SpanRow,
)

_TABLES: Final[dict[str, type[msgspec.Struct]]] = {
    "requests": RequestRow,
    "flows": FlowRow,
    "decisions": Decision,
    "spans": SpanRow,
    "links": LinkSample,
    "progress": ProgressRow,
}

_SIZE_BYTES: Final = 8


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a record, but for its rows: of each table, `blocks` has the offset, the size in bytes and
    the number of rows of its blocks."""

    blocks: dict[str, list[tuple[int, int, int]]]
    policy: str
    fabric: str
    permit_latency_ms: tuple[float, ...]
    fidelity: Fidelity
    facts: dict[str, str | int | float]
    queues: dict[str, list[dict[str, str | int | float]]]
    duration_ns: int
    wall_s: float
    order: FlowOrder
    batches_at_once: int
    caches: tuple[CacheRow, ...]
    faults: tuple[Fault, ...]


def write_record(path: Path, record: RunRecord) -> None:
    """Write `record` to `path`. Raises `OSError`, for a full disk for instance."""
    with path.open("wb") as file:
        write_to(file, record)


def write_to(file: IO[bytes], record: RunRecord) -> None:
    """Write `record` to `file`, which is empty. Raises `OSError`."""
    blocks: dict[str, list[tuple[int, int, int]]] = {}
    for name in _TABLES:
        blocks[name] = []
        for content, rows in blocks_of(getattr(record, name)):
            blocks[name].append((file.tell(), len(content), rows))
            file.write(content)
    others = {name: getattr(record, name) for name in _Index.__struct_fields__ if name != "blocks"}
    others["permit_latency_ms"] = tuple(record.permit_latency_ms)
    index = msgspec.msgpack.encode(_Index(blocks=blocks, **others))
    file.write(index + len(index).to_bytes(_SIZE_BYTES))


def read_record(path: Path) -> RunRecord:
    """Return the record that `write_record` has written. Its rows stay in the file, which may be deleted.

    Raises `OSError` for a file that cannot be read, and `ValueError` for one that has no record.
    """
    return _read(_OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC)), str(path))


def read_from(descriptor: int) -> RunRecord:
    """Return the record that `write_to` has written to the file behind `descriptor`, which may be closed.

    Raises as `read_record` does.
    """
    return _read(_OpenFile(os.dup(descriptor)), "the file")


def _read(file: "_OpenFile", name: str) -> RunRecord:
    size = int.from_bytes(file.read(file.size - _SIZE_BYTES, _SIZE_BYTES)) if file.size > _SIZE_BYTES else 0
    if not 0 < size <= file.size - _SIZE_BYTES:
        raise ValueError(f"{name} holds no record")
    index = msgspec.msgpack.decode(file.read(file.size - _SIZE_BYTES - size, size), type=_Index)
    fields: dict[str, Any] = {
        name: ColumnSpool.of_blocks(row, file, index.blocks[name]) for name, row in _TABLES.items()
    }
    fields |= {name: getattr(index, name) for name in _Index.__struct_fields__ if name != "blocks"}
    return RunRecord(**fields | {"requests": tuple(fields["requests"])})


class _OpenFile:
    """A file that several spools read, open as long as one of them is there."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._closing = weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)
