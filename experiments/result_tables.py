"""The six result tables: their columns, and the way between Parquet files and rows.

Each table is one Parquet file with a `policy` column first, over all policies of a run. Columns are
the fields of the row structs in `testbed.record`, stages as "S1", levels as 0..7. Only `links` is
shaped differently: one row per sample *and level*. `docs/results.md` explains every column.
"""

import enum
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from controller.flow import Level
from experiments.atomic_file import replacing
from testbed.record import DecisionRow, FlowRow, LinkSample, Progress, RequestRow, RunRecord, SpanRow

Row = TypeVar("Row", bound=msgspec.Struct)

_TEXT: Final = pa.string()
_COUNT: Final = pa.int64()
_RANK: Final = pa.int32()
_LEVEL: Final = pa.int8()


def _schema(required: dict[str, Any], optional: dict[str, Any] | None = None) -> pa.Schema:
    fields = [pa.field("policy", _TEXT, nullable=False)]
    fields += [pa.field(name, kind, nullable=False) for name, kind in required.items()]
    fields += [pa.field(name, kind) for name, kind in (optional or {}).items()]
    return pa.schema(fields)


SCHEMAS: Final[dict[str, pa.Schema]] = {
    "requests": _schema(
        {
            "request": _COUNT,
            "slo_class": _TEXT,
            "status": _TEXT,
            "prompt_tokens": _COUNT,
            "new_tokens": _COUNT,
            "local_tokens": _COUNT,
            "remote_tokens": _COUNT,
            "arrival_ns": _COUNT,
            "slo_ns": _COUNT,
            "unloaded_ttft_ns": _COUNT,
        },
        {
            "unit": _TEXT,
            "batch": _TEXT,
            "decode_rank": _RANK,
            "start_ns": _COUNT,
            "prefill_end_ns": _COUNT,
            "p2d_end_ns": _COUNT,
            "first_token_ns": _COUNT,
            "ttft_ns": _COUNT,
        },
    ),
    "flows": _schema(
        {
            "id": _TEXT,
            "stage": _TEXT,
            "src": _RANK,
            "dst": _RANK,
            "src_server": _TEXT,
            "size_bytes": _COUNT,
            "submit_ns": _COUNT,
            "permit_ns": _COUNT,
            "lane_wait_ns": _COUNT,
            "finish_ns": _COUNT,
            "level_first": _LEVEL,
            "level_last": _LEVEL,
            "promotions": _RANK,
            "path": pa.list_(_TEXT),
        },
        {
            "dst_server": _TEXT,
            "batch": _TEXT,
            "request": _COUNT,
            "layer": _RANK,
            "coflow": _TEXT,
            "deadline_ns": _COUNT,
            "verified": pa.bool_(),
        },
    ),
    "decisions": _schema(
        {"time_ns": _COUNT, "flow": _TEXT, "level_to": _LEVEL, "reason": _TEXT},
        {"level_from": _LEVEL},
    ),
    "spans": _schema(
        {"rank": _RANK, "kind": _TEXT, "label": _TEXT, "start_ns": _COUNT, "end_ns": _COUNT},
        {"batch": _TEXT, "layer": _RANK},
    ),
    "links": _schema(
        {
            "time_ns": _COUNT,
            "port": _TEXT,
            "level": _LEVEL,
            "sent_wire_bytes": _COUNT,
            "backlog_wire_bytes": _COUNT,
            "drops": _COUNT,
        }
    ),
    "progress": _schema({"time_ns": _COUNT, "flow": _TEXT, "received_bytes": _COUNT}),
}


def _plain(value: object) -> object:
    """An enum as its value; everything else is what Parquet knows already."""
    return value.value if isinstance(value, enum.Enum) else value


def _link_columns(samples: Iterable[LinkSample]) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = {name: [] for name in SCHEMAS["links"].names[1:]}
    for sample in samples:
        columns["time_ns"] += [sample.time_ns] * len(Level)
        columns["port"] += [sample.port] * len(Level)
        columns["level"] += list(range(len(Level)))
        columns["sent_wire_bytes"] += sample.sent_bytes
        columns["backlog_wire_bytes"] += sample.backlog_bytes
        columns["drops"] += sample.drops
    return columns


def _row_columns(table: str, rows: Iterable[msgspec.Struct]) -> dict[str, list[object]]:
    rows = tuple(rows)
    return {name: [_plain(getattr(row, name)) for row in rows] for name in SCHEMAS[table].names[1:]}


_COLUMNS: Final[dict[str, Callable[[RunRecord], dict[str, list[object]]]]] = {
    "requests": lambda record: _row_columns("requests", record.requests),
    "flows": lambda record: _row_columns("flows", record.flows),
    "decisions": lambda record: _row_columns("decisions", record.decisions),
    "spans": lambda record: _row_columns("spans", record.spans),
    "links": lambda record: _link_columns(record.links),
    "progress": lambda record: _row_columns("progress", record.progress),
}


def write_tables(out: Path, records: Iterable[RunRecord]) -> None:
    """Write `out/<table>.parquet` for all six tables. A full disk raises `OSError`."""
    records = tuple(records)
    for name, schema in SCHEMAS.items():
        parts = [pa.Table.from_batches([], schema=schema)]
        for record in records:
            columns = _COLUMNS[name](record)
            length = len(next(iter(columns.values())))
            columns = {"policy": [record.policy] * length, **columns}
            parts.append(pa.Table.from_pydict(columns, schema=schema))
        with replacing(out / f"{name}.parquet") as temporary:
            pq.write_table(pa.concat_tables(parts), temporary, compression="zstd")


class Tables(msgspec.Struct, frozen=True, kw_only=True):
    """One policy's rows, as they were in its `RunRecord`."""

    requests: tuple[RequestRow, ...]
    flows: tuple[FlowRow, ...]
    decisions: tuple[DecisionRow, ...]
    spans: tuple[SpanRow, ...]
    links: tuple[LinkSample, ...]
    progress: tuple[Progress, ...]


def read_tables(out: Path, policy: str) -> Tables:
    """Read one policy's rows back. Raises `OSError` for a missing file, `pa.ArrowInvalid` for a bad one."""

    def read(table: str, row: type[Row]) -> tuple[Row, ...]:
        return msgspec.convert(_read(out, table, policy).to_pylist(), tuple[row, ...])  # type: ignore[valid-type]

    return Tables(
        requests=read("requests", RequestRow),
        flows=read("flows", FlowRow),
        decisions=read("decisions", DecisionRow),
        spans=read("spans", SpanRow),
        links=_read_links(_read(out, "links", policy)),
        progress=read("progress", Progress),
    )


def _read(out: Path, table: str, policy: str) -> pa.Table:
    return pq.read_table(out / f"{table}.parquet", filters=[("policy", "=", policy)])


def _read_links(table: pa.Table) -> tuple[LinkSample, ...]:
    """Put the eight rows of a sample, which are written together, into one again."""
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    step = len(Level)
    return tuple(
        LinkSample(
            time_ns=columns["time_ns"][i],
            port=columns["port"][i],
            sent_bytes=tuple(columns["sent_wire_bytes"][i : i + step]),
            backlog_bytes=tuple(columns["backlog_wire_bytes"][i : i + step]),
            drops=tuple(columns["drops"][i : i + step]),
        )
        for i in range(0, table.num_rows, step)
    )
