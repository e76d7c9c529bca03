"""A sequence that keeps its rows in columns in a temporary file, for rows that do not fit into memory.

A simulated run of thousands of GPUs leaves millions of flows behind. They come in blocks of columns, and
most readers need a few columns only. So a block is an Arrow record batch, compressed with LZ4, and only the
block that is being read is decoded. Rows are made from it when somebody looks at them.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Generic, Protocol, TypeVar, overload, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from testbed.arrow_rows import Column, batch_of_block, batch_of_rows, rows_of, schema_of
from testbed.temporary_file import TemporaryFile

Row = TypeVar("Row", bound=msgspec.Struct)

Choose = Callable[[pa.RecordBatch], npt.NDArray[np.bool_]]
"""Says of each row of a batch whether it is chosen."""

BLOCK_ROWS: Final = 8_192
"""Rows of a block that is made of single rows. As objects they take a few megabytes."""

_WRITING = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


class BlockFile(Protocol):
    """Where the blocks of a spool are read from."""

    def read(self, offset: int, size: int) -> bytes: ...


class ColumnSpool(Sequence[Row], Generic[Row]):
    """A sequence of structs of type `row` that can be appended to and keeps few rows in memory.

    Up to `block_rows` of the rows that were appended last stay in memory. All others go to an anonymous file
    in the directory for temporary files (TMPDIR), which is deleted with the spool. Rows come back equal, not
    identical. Iteration is cheap. An index decodes the whole block of its row, unless the last index was in
    the same block. Several iterators may be in use at once. One that started before an `append` does not
    see the new row.

    Raises `OSError` with the directory's name if the file cannot be written.
    """

    def __init__(self, row: type[Row], rows: Iterable[Row] = (), *, block_rows: int = BLOCK_ROWS) -> None:
        self._row = row
        self._schema = schema_of(row)
        self._block_rows = block_rows
        self._own: TemporaryFile | None = None
        self._file: BlockFile | None = None  # `_own`, or one that was given
        self._blocks: list[tuple[int, int]] = []  # offset, bytes
        self._ends: list[int] = []  # number of rows up to the end of each block
        self._newest: list[Row] = []
        self._read: tuple[int, list[Row]] | None = None  # number and rows of the last block indexed
        self.extend(rows)

    def append(self, row: Row) -> None:
        self._newest.append(row)
        if len(self._newest) >= self._block_rows:
            self._put_newest_away()

    def extend(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.append(row)

    def append_block(self, block: Mapping[str, Column]) -> None:
        """Append rows that come in columns: an array, or for strings a `Coded`, for each field.

        The arrays may be used again afterwards. A block of some ten thousand rows is right: it is decoded as
        a whole. Raises what `batch_of_block` raises.
        """
        batch = batch_of_block(self._row, block)
        self._put_newest_away()
        self._put_away(batch)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows as record batches with the columns in `columns` (None: all), in that order.

        `testbed.arrow_rows` says what a column looks like. Batches are of different sizes and have a
        dictionary of their own for each column of strings.
        """
        names = self._schema.names if columns is None else list(columns)
        blocks, newest = len(self._blocks), list(self._newest)
        for i in range(blocks):
            yield self._batch(i, names)
        if newest:
            yield batch_of_rows(self._row, newest).select(names)

    def chosen(self, by: Sequence[str], choose: Choose) -> Iterator[pa.RecordBatch]:
        """Yield, with all columns, the rows that `choose` chooses by their columns `by`.

        The other columns of a block are read only if one of its rows is chosen.
        """
        blocks, newest = len(self._blocks), list(self._newest)
        for i in range(blocks):
            if (rows := choose(self._batch(i, by))).any():
                yield _only(self._batch(i, self._schema.names), rows)
        if newest:
            batch = batch_of_rows(self._row, newest)
            yield _only(batch, choose(batch.select(list(by))))

    def blocks(self) -> Iterator[tuple[bytes, int]]:
        """Yield the rows in blocks, each as bytes and its number of rows. `of_blocks` takes them."""
        begin = 0
        for place, end in zip(self._blocks, self._ends, strict=True):
            assert self._file is not None  # there are blocks in it
            yield self._file.read(*place), end - begin
            begin = end
        if self._newest:
            yield _encoded(batch_of_rows(self._row, self._newest)), len(self._newest)

    @classmethod
    def of_blocks(
        cls, row: type[Row], file: "BlockFile", blocks: Iterable[tuple[int, int, int]]
    ) -> "ColumnSpool[Row]":
        """Return the rows whose blocks are in `file`, each at an offset, with a size in bytes and a number of
        rows. More rows cannot be appended."""
        spool = cls(row)
        spool._file = file
        for offset, size, rows in blocks:
            spool._blocks.append((offset, size))
            spool._ends.append(spool._begin_of(len(spool._ends)) + rows)
        return spool

    def close(self) -> None:
        """Drop the rows and delete the file. This also happens when the spool is no longer referenced."""
        if self._own is not None:
            self._own.close()
        self._own, self._file, self._read = None, None, None
        self._blocks, self._ends, self._newest = [], [], []

    def __len__(self) -> int:
        return self._begin_of(len(self._blocks)) + len(self._newest)

    def __iter__(self) -> Iterator[Row]:
        blocks, newest = len(self._blocks), list(self._newest)
        for i in range(blocks):
            yield from self._rows(i)
        yield from newest

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            chosen = range(*index.indices(len(self)))
            if chosen.step == 1:
                return list(self._between(chosen.start, chosen.stop))
            return [self[i] for i in chosen]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        block = bisect_right(self._ends, place)
        return self._kept(block)[place - self._begin_of(block)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ColumnSpool):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ColumnSpool({self._row.__name__}, {len(self)} rows)"

    def _between(self, start: int, stop: int) -> Iterator[Row]:
        block = bisect_right(self._ends, start)
        while start < stop:
            begin = self._begin_of(block)
            end = min(stop, self._ends[block] if block < len(self._ends) else len(self))
            yield from islice(self._kept(block), start - begin, end - begin)
            start, block = end, block + 1

    def _begin_of(self, block: int) -> int:
        return self._ends[block - 1] if block else 0

    def _kept(self, block: int) -> list[Row]:
        """The rows of `block`, cached for the next index. The block after the last is the newest rows."""
        if block == len(self._blocks):
            return self._newest
        if self._read is None or self._read[0] != block:
            self._read = block, self._rows(block)
        return self._read[1]

    def _rows(self, block: int) -> list[Row]:
        return rows_of(self._row, self._batch(block, self._schema.names))

    def _batch(self, block: int, names: Sequence[str]) -> pa.RecordBatch:
        if self._file is None:
            raise ValueError("the spool is closed")
        fields = sorted(self._schema.get_field_index(name) for name in names)
        reading = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        content = pa.py_buffer(self._file.read(*self._blocks[block]))
        with pa.ipc.open_stream(content, options=reading) as stream:
            return stream.read_next_batch().select(list(names))

    def _put_newest_away(self) -> None:
        if self._newest:
            self._put_away(batch_of_rows(self._row, self._newest))
            self._newest = []

    def _put_away(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        if self._file is None:
            self._file = self._own = TemporaryFile()
        if self._own is None:
            raise ValueError("the rows of this spool are in a file that only others write")
        content = _encoded(batch)
        self._blocks.append((self._own.append(content), len(content)))
        self._ends.append(self._begin_of(len(self._ends)) + batch.num_rows)


def _encoded(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_WRITING) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


@runtime_checkable
class Columnar(Protocol):
    """Rows that can be read in columns, as those of `ColumnSpool`."""

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]: ...


def batches_of(
    rows: Iterable[msgspec.Struct], columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield `rows`, which may be plain rows, as record batches, as `ColumnSpool.batches` does."""
    if isinstance(rows, Columnar):
        yield from rows.batches(columns)
        return
    left = iter(rows)
    while part := list(islice(left, BLOCK_ROWS)):
        batch = batch_of_rows(type(part[0]), part)
        yield batch if columns is None else batch.select(list(columns))


def blocks_of(rows: Iterable[msgspec.Struct]) -> Iterator[tuple[bytes, int]]:
    """Yield `rows`, which may be plain rows, in blocks, as `ColumnSpool.blocks` does.

    A batch is a block, with the same dictionaries. So what is written from the blocks is what would be
    written from the rows themselves.
    """
    if isinstance(rows, ColumnSpool):
        yield from rows.blocks()
        return
    for batch in batches_of(rows):
        yield _encoded(batch), batch.num_rows


def chosen_of(rows: Iterable[msgspec.Struct], by: Sequence[str], choose: Choose) -> Iterator[pa.RecordBatch]:
    """Yield those of `rows`, which may be plain rows, that `choose` chooses, as `ColumnSpool.chosen` does."""
    if isinstance(rows, ColumnSpool):
        yield from rows.chosen(by, choose)
        return
    for batch in batches_of(rows):
        yield _only(batch, choose(batch.select(list(by))))


def _only(batch: pa.RecordBatch, rows: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    return batch if rows.all() else batch.filter(pa.array(rows))


def in_order(rows: ColumnSpool[Row], row: type[Row], *by: str) -> ColumnSpool[Row]:
    """Return `rows`, of type `row`, sorted by the columns `by`. Equal rows keep their order.

    Only these columns are in memory as a whole. Rows that are nearly in order already are read little more
    than once.
    """
    batches = list(rows.batches(by))
    if not batches:
        return rows
    keys = {name: pa.concat_arrays([_plain(batch.column(name)) for batch in batches]) for name in by}
    ranks = pa.array(np.arange(len(rows)))
    table = pa.table({**keys, "": ranks})
    places = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in (*by, "")]).to_numpy()
    ordered: ColumnSpool[Row] = ColumnSpool(row)
    for begin in range(0, len(places), BLOCK_ROWS):
        wanted = places[begin : begin + BLOCK_ROWS]
        found = {place: rows[place] for place in sorted(wanted.tolist())}  # each block is read once
        ordered.extend(found[place] for place in wanted.tolist())
    return ordered


def _plain(array: Any) -> Any:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def numbers(batch: pa.RecordBatch, name: str, absent: int | None = None) -> npt.NDArray[np.int64]:
    """Return a column of integers or booleans, with `absent` for each None.

    Raises `ValueError` if there is a None and `absent` is not given.
    """
    column = batch.column(name)
    if column.null_count and absent is None:
        raise ValueError(f"column {name} has {column.null_count} values None")
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    filled = column.fill_null(absent) if column.null_count else column
    return filled.to_numpy().astype(np.int64, copy=False)  # type: ignore[no-any-return]


def present(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.bool_]:
    """Return where a column is not None."""
    return batch.column(name).is_valid().to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def by_word(batch: pa.RecordBatch, name: str, holds: Callable[[pa.Array], pa.Array]) -> npt.NDArray[np.bool_]:
    """Return where a column of strings without None has a word of which `holds` says so, asked once for all
    different words."""
    column = batch.column(name)
    found = holds(column.dictionary).to_numpy(zero_copy_only=False)
    return found[column.indices.to_numpy()]  # type: ignore[no-any-return]


def codes(batch: pa.RecordBatch, name: str) -> tuple[npt.NDArray[np.int64], list[Any]]:
    """Return a column of strings as codes into a list of strings, which is the batch's own. None is -1."""
    column = batch.column(name)
    found = column.indices.fill_null(-1).to_numpy().astype(np.int64)
    return found, column.dictionary.to_pylist()
