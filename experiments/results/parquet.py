"""The six result tables: conversion between rows and Parquet files (`experiments.results.schemas`).

Each table is one Parquet file for all policies of a run. Its first column is `policy`; the others are the
fields of the row structs in `testbed.record`, with stages as "S1" and levels as 0..7. Only `links` differs:
it has one row per sample *and level*. `docs/reference/results.md` explains every column.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from controller.flow import Decision, Level
from experiments.atomic_file import replacing
from experiments.errors import UserError
from experiments.results.schemas import COUNT, SCHEMAS
from testbed.arrow_rows import values_of
from testbed.columns import batches_of
from testbed.record import FlowRow, LinkSample, ProgressRow, RequestRow, RunRecord, SpanRow

Row = TypeVar("Row", bound=msgspec.Struct)

TABLES: Final[dict[type[msgspec.Struct], str]] = {
    RequestRow: "requests",
    FlowRow: "flows",
    Decision: "decisions",
    SpanRow: "spans",
    LinkSample: "links",
    ProgressRow: "progress",
}

GROUP_ROWS: Final = 16_384
"""Most rows of a row group, which is the part of a table that is in memory at a time when it is written or
read. In `links`, where a sample takes eight rows, it is the number of samples."""

_TABLES_AT_ONCE: Final = 2

_IDS_OF_FLOWS: Final = frozenset({"id", "flow"})

_CODED_TEXT: Final = pa.dictionary(pa.int32(), pa.string())
_CODED_LIST: Final = pa.list_(_CODED_TEXT)
_CODED: Final = {pa.string(): _CODED_TEXT, pa.list_(pa.string()): _CODED_LIST}

_BY_LEVEL: Final = {
    "sent_bytes": "sent_wire_bytes",
    "backlog_bytes": "backlog_wire_bytes",
    "drops": "drops",
}
"""The fields of a sample that have a value for each level, and their columns in `links`."""


def write_tables(out: Path, records: Sequence[RunRecord]) -> None:
    """Write `out/<table>.parquet` for all six tables.

    The rows of `records` are read once, in columns. A row group has rows of one policy only.
    """
    # Arrow compresses without holding the interpreter: two tables take little longer than one.
    with ThreadPoolExecutor(_TABLES_AT_ONCE) as pool:
        for done in [pool.submit(_write_table, out, row, records) for row in TABLES]:
            done.result()


def _write_table(out: Path, row: type[msgspec.Struct], records: Sequence[RunRecord]) -> None:
    name = TABLES[row]
    schema = _written(SCHEMAS[name])
    rows, columns = (GROUP_ROWS * len(Level), _link_columns) if row is LinkSample else (GROUP_ROWS, _columns)
    with (
        replacing(out / f"{name}.parquet") as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression="zstd",
            use_dictionary=_columns_that_repeat(SCHEMAS[name]),
            write_statistics=_columns_to_skip_by(SCHEMAS[name]),
            store_schema=False,  # readers see plain texts
        ) as writer,
    ):
        for record in records:
            for batch in batches_of(getattr(record, name)):
                writer.write_table(_table(schema, record.policy, columns(batch)), row_group_size=rows)


def _written(schema: pa.Schema) -> pa.Schema:
    """Return the schema of what Parquet is given: `schema`, with codes for texts that repeat.

    Parquet stores them with the same codes, and need not look at each text to find these.
    """
    fields = [
        field.with_type(_CODED.get(field.type, field.type)) if field.name not in _IDS_OF_FLOWS else field
        for field in schema
    ]
    return pa.schema(fields)


def _columns_that_repeat(schema: pa.Schema) -> list[str]:
    """Return the paths in the file of columns in which a value occurs often: texts, ranks and levels.

    A dictionary of times or of ids has about as many entries as the column, and takes long to make.
    """
    return [
        f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
        for field in schema
        if field.type != COUNT and field.name not in _IDS_OF_FLOWS
    ]


def _columns_to_skip_by(schema: pa.Schema) -> list[str]:
    """Return the columns whose smallest and largest value in a row group can tell that a reader needs none of
    its rows. Among texts that is the policy: some flow of any batch ends at any time."""
    return ["policy", *(field.name for field in schema if field.type in (COUNT, pa.bool_()))]


def _table(schema: pa.Schema, policy: str, columns: Mapping[str, pa.Array]) -> pa.Table:
    """Return the columns in the types of `schema`, behind the policy."""
    count = len(columns[schema.names[1]])
    policies = pa.DictionaryArray.from_arrays(np.zeros(count, dtype=np.int32), pa.array([policy]))
    typed = [policies, *(_typed(columns[field.name], field.type) for field in list(schema)[1:])]
    return pa.Table.from_arrays(typed, schema=schema)


def _typed(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if kind == _CODED_LIST:
        return _lists_of_codes(column)
    if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(kind):
        column = column.dictionary.take(column.indices)
    return column.cast(kind)


def _lists_of_codes(column: pa.DictionaryArray) -> pa.ListArray:
    """Return lists of texts, which are coded as a whole, as lists of codes."""
    words = column.dictionary.values.dictionary_encode()
    lists = pa.ListArray.from_arrays(column.dictionary.offsets, words.indices).take(column.indices)
    coded = pa.DictionaryArray.from_arrays(lists.values, words.dictionary)
    return pa.ListArray.from_arrays(lists.offsets, coded, type=_CODED_LIST, mask=lists.is_null())


def _columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def _link_columns(samples: pa.RecordBatch) -> dict[str, pa.Array]:
    """Return a row for each sample and level. Raises `ValueError` if a sample lacks levels."""
    count = samples.num_rows
    each = pa.array(np.repeat(np.arange(count), len(Level)))
    columns = {name: samples.column(name).take(each) for name in ("time_ns", "port")}
    columns["level"] = pa.array(np.tile(np.arange(len(Level)), count))
    for name, column in _BY_LEVEL.items():
        lengths = samples.column(name).value_lengths().to_numpy()
        if (lengths != len(Level)).any():
            raise ValueError(f"a sample of links has {name} for other than {len(Level)} levels")
        columns[column] = samples.column(name).flatten()
    return columns


class TableRows(Generic[Row]):
    """The rows of one policy in one table, read from the file during iteration, in the order of the file.

    A file of an older version may lack a column that can be null. The rows then have the default of the row
    struct, else null. The constructor raises `UserError` if another column is missing, `OSError` for a
    missing file, and `pa.ArrowInvalid` for a malformed one.
    """

    def __init__(self, out: Path, row: type[Row], policy: str) -> None:
        self._path = out / f"{TABLES[row]}.parquet"
        self._schema = SCHEMAS[TABLES[row]]
        self._row = row
        self._policy = policy
        with self._path.open("rb") as file:  # pyarrow's error for a missing file would not hold its name
            read = pq.ParquetFile(file)
            self._there = frozenset(read.schema_arrow.names)
            leaves = [read.schema.column(i) for i in range(len(read.schema))]
        # Where few rows are wanted, few different texts are read as codes, which takes half of the time.
        self._words = [
            leaf.path
            for leaf in leaves
            if leaf.physical_type == "BYTE_ARRAY" and leaf.path.partition(".")[0] not in _IDS_OF_FLOWS
        ]
        self._defaults = {
            field.name: field.default
            for field in msgspec.structs.fields(row)
            if field.default is not msgspec.NODEFAULT
        }
        refused = [field.name for field in self._schema if not (field.nullable or field.name in self._there)]
        if refused:
            raise UserError(
                f"{self._path} has no column {', '.join(refused)}: the run was made by another version of"
                " mfs; make it again"
            )

    def __len__(self) -> int:
        among = {"policy": (self._policy,)}
        with pq.ParquetFile(self._path) as file:
            groups = list(self._groups(file, among))
            if not any(unsure for _, unsure in groups):
                return sum(file.metadata.row_group(i).num_rows for i, _ in groups)
        return sum(part.num_rows for part in self.parts(["policy"]))

    def __iter__(self) -> Iterator[Row]:
        return self.where()

    def where(self, **among: Collection[Any]) -> Iterator[Row]:
        """Yield the rows that have, in each column given, one of the values given for it."""
        for part in self.parts(None, **among):
            yield from self._rows(part)

    def at(self, columns: Sequence[str], places: npt.NDArray[np.int64]) -> pa.Table:
        """Return `columns` of the rows at `places`, which ascend: row 0 is the first one."""
        found = [pa.schema([self._schema.field(name) for name in columns]).empty_table()]
        begin = 0
        with pq.ParquetFile(self._path, read_dictionary=self._words) as file:
            for i, unsure in self._groups(file, {"policy": (self._policy,)}):
                rows = np.arange(file.metadata.row_group(i).num_rows)
                if unsure:
                    mine = _where(self._read(file, i, list(unsure)), unsure)
                    rows = rows[mine.to_numpy(zero_copy_only=False)]
                first, last = np.searchsorted(places, (begin, begin + len(rows)))
                if first < last:
                    wanted = rows[places[first:last] - begin]
                    found.append(_plain(self._read(file, i, columns).take(pa.array(wanted))))
                begin += len(rows)
        return pa.concat_tables(found)

    def parts(self, columns: Sequence[str] | None, **among: Collection[Any]) -> Iterator[pa.Table]:
        """Yield `columns` (None: all) of the rows that `where` yields, one table per row group."""
        words = self._words if among else []
        among = {"policy": (self._policy,), **among}
        kept = self._schema.names if columns is None else list(columns)
        with pq.ParquetFile(self._path, read_dictionary=words) as file:
            for i, unsure in self._groups(file, among):
                chosen = None
                if unsure:
                    chosen = _where(self._read(file, i, list(unsure)), unsure)
                    if not pc.any(chosen).as_py():
                        continue
                part = self._read(file, i, kept)
                yield _plain(part if chosen is None else part.filter(chosen))

    def _groups(
        self, file: pq.ParquetFile, among: Mapping[str, Collection[Any]]
    ) -> Iterator[tuple[int, dict[str, Collection[Any]]]]:
        """Yield the row groups that may have rows that meet all conditions, each with the conditions that not
        all of its rows are known to meet."""
        places = _places(file.metadata, among)
        for i in range(file.num_row_groups):
            unsure = _open_conditions(file.metadata.row_group(i), places, among)
            if unsure is not None:
                yield i, unsure

    def _read(self, file: pq.ParquetFile, group: int, names: Sequence[str]) -> pa.Table:
        """Return columns of a row group, with the defaults of those that the file lacks."""
        there = [name for name in names if name in self._there]
        # Several processes read at once, and threads for a few thousand rows cost more than they do.
        part = file.read_row_group(group, columns=there or ["policy"], use_threads=False)
        for name in names:
            if name not in self._there:
                filled = [self._defaults.get(name)] * part.num_rows
                part = part.append_column(name, pa.array(filled, self._schema.field(name).type))
        return part.select(list(names))

    def _rows(self, part: pa.Table) -> list[Row]:
        """Raises `msgspec.ValidationError` for values that the row struct does not allow."""
        if self._row is LinkSample:
            part = _samples(part)
        columns = [
            values_of(part[field.name].combine_chunks()) for field in msgspec.structs.fields(self._row)
        ]
        return msgspec.convert(list(zip(*columns, strict=True)), list[self._row])  # type: ignore[name-defined]


def _samples(part: pa.Table) -> pa.Table:
    """Return one row per sample. The eight rows of a sample, one per level, follow each other in `part`."""
    each = pa.table(
        {name: part[name].take(pa.array(range(0, part.num_rows, len(Level)))) for name in ("time_ns", "port")}
    )
    for name, column in _BY_LEVEL.items():
        values = part[column].combine_chunks()
        each = each.append_column(name, pa.FixedSizeListArray.from_arrays(values, len(Level)))
    return each


def _plain(part: pa.Table) -> pa.Table:
    """Return `part` with texts for codes of texts."""
    for i, field in enumerate(part.schema):
        if pa.types.is_dictionary(field.type):
            part = part.set_column(i, field.with_type(pa.string()), part[i].cast(pa.string()))
        elif pa.types.is_list(field.type) and pa.types.is_dictionary(field.type.value_type):
            lists = part[i].combine_chunks()
            texts = lists.values.cast(pa.string())
            plain = pa.ListArray.from_arrays(lists.offsets, texts, mask=lists.is_null())
            part = part.set_column(i, field.with_type(plain.type), plain)
    return part


def _places(metadata: Any, among: Iterable[str]) -> dict[str, int]:
    """Return where the file has those columns of `among` that it has, if it has any rows."""
    if not metadata.num_row_groups:
        return {}
    group = metadata.row_group(0)
    places = {group.column(i).path_in_schema: i for i in range(group.num_columns)}
    return {name: places[name] for name in among if name in places}


def _open_conditions(
    group: Any, places: Mapping[str, int], among: Mapping[str, Collection[Any]]
) -> dict[str, Collection[Any]] | None:
    """Return those conditions of which the statistics of a row group do not say that all its rows meet them.

    A row meets a condition if the column has one of the values. None if no row meets all of them.
    """
    unsure = dict(among)
    for name, i in places.items():
        known = group.column(i).statistics
        if known is None or not known.has_min_max:
            continue
        low, high = known.min, known.max
        if not any(low <= value <= high for value in among[name]):
            return None
        if low == high and known.has_null_count and not known.null_count:
            del unsure[name]
    return unsure


def _where(part: pa.Table, among: Mapping[str, Collection[Any]]) -> pa.Array:
    """Return which rows have, in each column of `among`, one of its values."""
    return reduce(pc.and_, [_is_in(part[name], values) for name, values in among.items()])


def _is_in(column: pa.ChunkedArray, values: Collection[Any]) -> pa.Array:
    array = column.combine_chunks()
    if not pa.types.is_dictionary(array.type):
        return pc.is_in(array, value_set=pa.array(list(values), type=array.type))
    among = pc.is_in(array.dictionary, value_set=pa.array(list(values), type=array.type.value_type))
    return among.take(array.indices).fill_null(False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The rows of one policy, as they were in its `RunRecord`. Only requests are read into memory."""

    requests: tuple[RequestRow, ...]
    flows: TableRows[FlowRow]
    decisions: TableRows[Decision]
    spans: TableRows[SpanRow]
    links: TableRows[LinkSample]
    progress: TableRows[ProgressRow]

    def rows(self, row: type[Row], **among: Collection[Any]) -> tuple[Row, ...]:
        """Return the rows of this type that `TableRows.where` yields."""
        table: TableRows[Row] = getattr(self, TABLES[row])
        return tuple(table.where(**among))


def read_tables(out: Path, policy: str) -> Tables:
    """Read back the rows of one policy. Raises what `TableRows` raises."""
    return Tables(
        requests=tuple(TableRows(out, RequestRow, policy)),
        flows=TableRows(out, FlowRow, policy),
        decisions=TableRows(out, Decision, policy),
        spans=TableRows(out, SpanRow, policy),
        links=TableRows(out, LinkSample, policy),
        progress=TableRows(out, ProgressRow, policy),
    )
