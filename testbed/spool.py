"""A sequence that keeps its rows in a temporary file, for rows that do not fit into memory.

A simulated run of thousands of GPUs leaves millions of flows behind. Readers go over them from first to
last. So the rows are stored in blocks, encoded with msgpack and compressed with LZ4, and only the block
that is being read is decoded.
"""

import os
import tempfile
import weakref
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar, overload

import msgspec
import pyarrow as pa

Row = TypeVar("Row", bound=msgspec.Struct)

BLOCK_BYTES = 1 << 20
"""Encoded bytes of a block. Decoded, its rows take about five times as much memory."""

_ARRAY_32 = b"\xdd"
"""First byte of a msgpack array. A 32-bit length follows, then the encoded rows, unchanged."""

_CODEC = "lz4"


class Spool(Sequence[Row]):
    """A sequence of structs of type `row` that can be appended to and keeps few rows in memory.

    Up to `block_bytes` of the newest rows, encoded, stay in memory. Older ones go to an anonymous file in
    the directory for temporary files (TMPDIR), which is deleted with the spool. Rows come back equal, not
    identical. Iteration is cheap. An index decodes the whole block of its row, unless the last index was in
    the same block. Several iterators may be in use at once. One that started before an `append` does not
    see the new row.

    Raises `OSError` with the directory's name if the file cannot be written.
    """

    def __init__(self, row: type[Row], rows: Iterable[Row] = (), *, block_bytes: int = BLOCK_BYTES) -> None:
        self._row = row
        self._block_bytes = block_bytes
        self._encode_into = msgspec.msgpack.Encoder().encode_into
        self._decoder = msgspec.msgpack.Decoder(list[row])  # type: ignore[valid-type]
        self._codec = pa.Codec(_CODEC)
        self._file: _TemporaryFile | None = None
        self._blocks: list[tuple[int, int, int]] = []  # offset, compressed bytes, encoded bytes
        self._ends: list[int] = []  # number of rows up to the end of each block
        self._newest = bytearray()
        self._length = 0
        self._read: tuple[int, list[Row]] | None = None  # number and rows of the last block indexed
        self.extend(rows)

    def append(self, row: Row) -> None:
        self._encode_into(row, self._newest, -1)
        self._length += 1
        if len(self._newest) >= self._block_bytes:
            self._put_away()

    def extend(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.append(row)

    def close(self) -> None:
        """Drop the rows and delete the file. This also happens when the spool is no longer referenced."""
        if self._file is not None:
            self._file.close()
        self._file, self._read = None, None
        self._blocks, self._ends, self._newest, self._length = [], [], bytearray(), 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Row]:
        blocks = len(self._blocks)
        newest = bytes(self._newest)
        count = self._length - self._begin_of(blocks)
        for i in range(blocks):
            yield from self._block(i)
        yield from self._decode(newest, count)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            chosen = range(*index.indices(self._length))
            if chosen.step == 1:
                return list(self._between(chosen.start, chosen.stop))
            return [self[i] for i in chosen]
        place = index + self._length if index < 0 else index
        if not 0 <= place < self._length:
            raise IndexError(f"row {index} of {self._length}")
        block = bisect_right(self._ends, place)
        return self._kept(block)[place - self._begin_of(block)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spool):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Spool({self._row.__name__}, {self._length} rows)"

    def _between(self, start: int, stop: int) -> Iterator[Row]:
        block = bisect_right(self._ends, start)
        while start < stop:
            begin = self._begin_of(block)
            end = min(stop, self._ends[block] if block < len(self._ends) else self._length)
            yield from islice(self._kept(block), start - begin, end - begin)
            start, block = end, block + 1

    def _begin_of(self, block: int) -> int:
        return self._ends[block - 1] if block else 0

    def _kept(self, block: int) -> list[Row]:
        """The rows of `block`, cached for the next index. The block after the last is the newest rows."""
        if self._read is not None and self._read[0] == block and block < len(self._blocks):
            return self._read[1]
        if block < len(self._blocks):
            rows = self._block(block)
            self._read = block, rows
            return rows
        return self._decode(bytes(self._newest), self._length - self._begin_of(block))

    def _block(self, block: int) -> list[Row]:
        if self._file is None:
            raise ValueError("the spool is closed")
        offset, size, encoded = self._blocks[block]
        raw = self._codec.decompress(self._file.read(offset, size), encoded, asbytes=True)
        return self._decode(raw, self._ends[block] - self._begin_of(block))

    def _decode(self, rows: bytes, count: int) -> list[Row]:
        return self._decoder.decode(_ARRAY_32 + count.to_bytes(4, "big") + rows)

    def _put_away(self) -> None:
        if self._file is None:
            self._file = _TemporaryFile()
        compressed = self._codec.compress(self._newest, asbytes=True)
        offset = self._file.append(compressed)
        self._blocks.append((offset, len(compressed), len(self._newest)))
        self._ends.append(self._length)
        self._newest.clear()


class _TemporaryFile:
    """An anonymous file that is appended to and read anywhere. It is closed with the object."""

    def __init__(self) -> None:
        self._directory = tempfile.gettempdir()
        file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - outlives this call
        self._descriptor = file.fileno()
        self._end = 0
        self.close = weakref.finalize(self, file.close)

    def append(self, content: bytes) -> int:
        """Write all of `content` at the end and return its offset."""
        begin, left = self._end, memoryview(content)
        try:
            while left:
                written = os.pwrite(self._descriptor, left, self._end)
                left = left[written:]
                self._end += written
        except OSError as error:
            error.filename = self._directory
            error.add_note("rows of a run are kept there until it ends; set TMPDIR to another directory")
            raise
        return begin

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)
