"""A spool of columns behaves like a list, without growing in memory, and gives its rows in columns."""

import errno
import gc
import os
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from result_rows import flow_row

from controller.flow import Decision, Level, Stage
from testbed import columns, temporary_file
from testbed.arrow_rows import Coded, Column, rows_of
from testbed.columns import ColumnSpool, batches_of, chosen_of, in_order, numbers, present
from testbed.record import FlowRow, LinkSample, ProgressRow, SpanRow
from workers.spans import SpanKind


def row(i: int) -> ProgressRow:
    return ProgressRow(time_ns=i, flow=f"f{i}", received_bytes=i * i)


def spooled(count: int, *, block_rows: int = 10) -> ColumnSpool[ProgressRow]:
    return ColumnSpool(ProgressRow, map(row, range(count)), block_rows=block_rows)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 500])
def test_rows_come_back_in_order(count: int) -> None:
    rows = spooled(count)
    assert len(rows) == count
    assert list(rows) == [row(i) for i in range(count)]


def test_every_index_and_slice_is_that_of_a_list() -> None:
    rows, plain = spooled(57), [row(i) for i in range(57)]
    assert [rows[i] for i in range(-57, 57)] == [plain[i] for i in range(-57, 57)]
    for cut in (
        slice(3, 40),
        slice(None, None, 7),
        slice(50, 5, -3),
        slice(9, 2),
        slice(-5, None),
        slice(99),
    ):
        assert rows[cut] == plain[cut]
    for outside in (57, -58):
        with pytest.raises(IndexError):
            rows[outside]


@pytest.mark.parametrize(
    "rows",
    [
        [
            Decision(time_ns=1, flow="f", level_from=None, level_to=Level.P3, reason="µ ≥ 0.5"),
            Decision(time_ns=2, flow="f", level_from=Level.P3, level_to=Level.P1, reason=""),
        ],
        [
            flow_row(path=(), verified=None, request=None, deadline_ns=2**62),
            flow_row(stage=Stage.COLLECTIVE, dst_server=None, layer=0, coflow="c", path=("a", "b", "c")),
            flow_row(verified=False, size_bytes=-1, level_last=Level.SCAVENGER),
            flow_row(verified=True, batch=""),
        ],
        [
            SpanRow(rank=1, kind=SpanKind.PAUSED, label="", batch=None, layer=None, start_ns=0, end_ns=3),
            SpanRow(rank=1, kind=SpanKind.COMPUTE, label="x", batch="b", layer=7, start_ns=3, end_ns=4),
        ],
        [LinkSample(time_ns=1, port="p", sent_bytes=(1, 2), backlog_bytes=(), drops=(0, 0))],
    ],
    ids=["decisions", "flows", "spans", "links"],
)
def test_all_kinds_of_values_survive(rows: list[msgspec.Struct]) -> None:
    """Enums, absent and empty values, tuples, and numbers that a float does not hold."""
    back = list(ColumnSpool(type(rows[0]), rows, block_rows=len(rows)))
    assert back == rows
    assert [list(map(type, msgspec.structs.astuple(one))) for one in back] == [
        list(map(type, msgspec.structs.astuple(one))) for one in rows
    ]


@pytest.mark.parametrize("wanted", [range(0), range(5, 8), range(18, 43), range(57)], ids=str)
@pytest.mark.parametrize("plain", [False, True], ids=["spooled", "plain rows"])
def test_chosen_rows_come_whole_and_in_order(wanted: range, plain: bool) -> None:
    """Of 57 rows, seven are not in a block yet."""
    rows = [row(i) for i in range(57)] if plain else spooled(57)

    def choose(batch: pa.RecordBatch) -> np.ndarray:
        assert batch.schema.names == ["time_ns"]
        return np.isin(numbers(batch, "time_ns"), wanted)

    found = [one for batch in chosen_of(rows, ("time_ns",), choose) for one in rows_of(ProgressRow, batch)]
    assert found == [row(i) for i in wanted]


def test_several_iterations_go_on_side_by_side() -> None:
    rows = spooled(100)
    one, other = iter(rows), iter(rows)
    assert list(islice(one, 45)) == [row(i) for i in range(45)]
    assert list(islice(other, 12)) == [row(i) for i in range(12)]
    assert list(one) == [row(i) for i in range(45, 100)]
    assert all(b.time_ns - a.time_ns == 1 for a, b in pairwise(other))


def test_an_iteration_ends_where_the_rows_ended_when_it_began() -> None:
    rows = spooled(15)
    under_way, in_columns = iter(rows), rows.batches()
    assert next(under_way) == row(0)
    first = next(in_columns).num_rows
    rows.extend(map(row, range(15, 60)))
    assert list(under_way) == [row(i) for i in range(1, 15)]
    assert first + sum(batch.num_rows for batch in in_columns) == 15
    assert list(rows) == [row(i) for i in range(60)]


def test_spools_are_equal_when_their_rows_are() -> None:
    assert spooled(30) == spooled(30, block_rows=100)
    assert spooled(30) != spooled(29)
    assert ColumnSpool(ProgressRow, [row(1)]) != ColumnSpool(ProgressRow, [row(2)])


# --- columns ----------------------------------------------------------------------------------------


def plain(batches: Iterator[pa.RecordBatch]) -> list[dict[str, object]]:
    return [one for batch in batches for one in batch.to_pylist()]


@pytest.mark.parametrize("of", [list, tuple, iter, lambda rows: ColumnSpool(FlowRow, rows, block_rows=3)])
def test_columns_have_the_plain_values_of_the_rows_in_order(
    of: Callable[[list[FlowRow]], Iterable[FlowRow]],
) -> None:
    rows = [flow_row(id=f"f{i}", batch="b" if i % 2 else None, path=("p",) * (i % 3)) for i in range(7)]
    wanted = [
        {"path": list(one.path), "stage": "S3", "batch": one.batch, "level_last": 3, "id": one.id}
        for one in rows
    ]
    names = ["path", "stage", "batch", "level_last", "id"]
    assert plain(batches_of(of(rows), names)) == wanted
    assert [one["id"] for one in plain(batches_of(of(rows)))] == [one.id for one in rows]


def test_without_rows_there_are_no_batches() -> None:
    assert list(batches_of([])) == list(batches_of(spooled(0))) == []


def test_numbers_and_absent_values_are_told_apart() -> None:
    (batch,) = batches_of([flow_row(request=0), flow_row(request=None), flow_row(request=7)])
    assert numbers(batch, "request", absent=-5).tolist() == [0, -5, 7]
    assert present(batch, "request").tolist() == [True, False, True]
    with pytest.raises(ValueError, match="request"):
        numbers(batch, "request")


def decisions(**changes: Column) -> dict[str, Column]:
    """Three decisions; the words hold more than these use."""
    block: dict[str, Column] = {
        "time_ns": np.array([10, 20, 30]),
        "flow": Coded(np.array([2, 1, 2], dtype=np.int32), ["a", "b", "c", "d"]),
        "level_from": np.ma.MaskedArray(np.array([0, 3, 3], dtype=np.int8), [True, False, False]),
        "level_to": np.array([3, 2, 1], dtype=np.int8),
        "reason": Coded(np.array([0, 0, 1]), ["new", "late"]),
    }
    return block | changes


def decision(time_ns: int, flow: str, before: Level | None, to: Level, reason: str) -> Decision:
    return Decision(time_ns=time_ns, flow=flow, level_from=before, level_to=to, reason=reason)


def test_blocks_and_rows_keep_the_order_in_which_they_came() -> None:
    rows = ColumnSpool(Decision)
    first, last = decision(1, "x", None, Level.P6, ""), decision(99, "y", None, Level.P5, "")
    rows.append(first)
    rows.append_block(decisions())
    rows.append(last)
    of_block = [
        decision(10, "c", None, Level.P3, "new"),
        decision(20, "b", Level.P3, Level.P2, "new"),
        decision(30, "c", Level.P3, Level.P1, "late"),
    ]
    assert list(rows) == [first, *of_block, last]
    assert rows[2] == of_block[1]
    assert [one["flow"] for one in plain(rows.batches(["flow"]))] == ["x", "c", "b", "c", "y"]


def test_the_words_of_a_block_may_grow_and_be_far_apart_afterwards() -> None:
    """Codes 0 and 999,999 in a block of three: the block keeps two words of a million."""
    words = [f"f{i}" for i in range(1_000_000)]
    rows = ColumnSpool(Decision)
    rows.append_block(decisions(flow=Coded(np.array([999_999, 0, 999_999]), words)))
    words[0] = "changed"
    assert [one.flow for one in rows] == ["f999999", "f0", "f999999"]
    (batch,) = rows.batches(["flow"])
    assert columns.codes(batch, "flow")[1] == ["f0", "f999999"]


def test_a_column_of_codes_may_hold_paths_and_absent_values() -> None:
    wanted = [flow_row(id="a", path=("p", "q"), batch=None), flow_row(id="b", path=(), batch="b1")]
    block: dict[str, Column] = {}
    for field in FlowRow.__struct_fields__:
        values = [msgspec.to_builtins(getattr(one, field)) for one in wanted]
        if field == "path":
            block[field] = Coded(np.array([1, 0]), [(), ("p", "q")])
        elif any(isinstance(value, str) for value in values):
            words = [value for value in values if value is not None]
            found = [-1 if value is None else words.index(value) for value in values]
            block[field] = Coded(np.array(found), words)
        elif field in ("coflow", "dst_server"):
            block[field] = Coded(np.array([-1, -1]), [])
        else:
            absent = [value is None for value in values]
            block[field] = np.ma.MaskedArray([value or 0 for value in values], absent)
    rows = ColumnSpool(FlowRow)
    rows.append_block(block)
    assert list(rows) == wanted


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"time_ns": np.array([1, 2])}, "length"),
        ({"more": np.array([1, 2, 3])}, "more"),
        ({"level_to": np.array([1, 2, 8])}, "Level has no 8"),
        ({"level_to": np.ma.MaskedArray([1, 2, 3], [False, True, False])}, "1 values are None"),
        ({"time_ns": np.array([0.5, 1, 2])}, "time_ns"),
        ({"time_ns": Coded(np.array([0, 0, 0]), ["1"])}, "numbers have none"),
        ({"flow": np.array([0, 0, 0])}, "strings have codes"),
        ({"flow": Coded(np.array([0, 1, 2]), ["a", "b"])}, "outside"),
        ({"flow": Coded(np.array([0, -2, 0]), ["a", "b"])}, "outside"),
        ({"flow": Coded(np.array([0, -1, 0]), ["a", "b"])}, "1 values are None"),
    ],
)
def test_a_block_that_cannot_be_right_is_refused(changes: dict[str, Column], told: str) -> None:
    rows = ColumnSpool(Decision)
    with pytest.raises(ValueError, match=told):
        rows.append_block(decisions(**changes))
    assert len(rows) == 0


def test_a_block_lacks_no_column() -> None:
    block = decisions()
    del block["reason"]
    with pytest.raises(ValueError, match="reason"):
        ColumnSpool(Decision).append_block(block)


# --- the file ---------------------------------------------------------------------------------------


def nameless_files() -> int:
    """The number of open files of this process that are in no directory."""
    gc.collect()  # what other tests have left
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return sum(os.readlink(link).endswith("(deleted)") for link in links if os.path.lexists(link))


def test_the_file_goes_with_the_spool() -> None:
    before = nameless_files()
    rows, closed = spooled(100), spooled(100)
    assert nameless_files() == before + 2
    closed.close()
    assert len(closed) == 0
    assert list(closed) == []
    del rows
    assert nameless_files() == before


def test_a_full_disk_names_the_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(temporary_file.tempfile, "gettempdir", lambda: "/var/tmp")
    monkeypatch.setattr(temporary_file.os, "pwrite", full)
    with pytest.raises(OSError, match="No space left on device: '/var/tmp'") as raised:
        spooled(100)
    assert "TMPDIR" in raised.value.__notes__[0]


def test_what_is_written_in_parts_is_written_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(temporary_file.os, "pwrite", lambda file, data, at: whole(file, data[:7], at))
    assert list(spooled(100)) == [row(i) for i in range(100)]


def read_as_rows(rows: ColumnSpool[ProgressRow]) -> int:
    return sum(one.time_ns for one in rows)


def read_as_columns(rows: Sequence[ProgressRow]) -> int:
    return sum(int(numbers(batch, "time_ns").sum()) for batch in batches_of(rows, ["time_ns"]))


@pytest.mark.parametrize("read", [read_as_rows, read_as_columns])
def test_200_000_rows_are_written_and_read_in_a_few_megabytes(
    read: Callable[[ColumnSpool[ProgressRow]], int],
) -> None:
    # As a list they would take 200,000 times about 170 bytes: 34 MB.
    read(spooled(100))
    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        rows = spooled(200_000, block_rows=columns.BLOCK_ROWS)
        assert pa.total_allocated_bytes() == arrow
        assert read(rows) == 200_000 * 199_999 // 2
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_rows_are_put_in_the_order_of_columns_however_they_lie_in_blocks() -> None:
    """By time, then by name: numbers count as numbers, and equal rows keep their order."""
    found = [(5, "a", 1), (10, "b", 2), (9, "b", 3), (9, "a", 4), (2, "z", 5), (9, "a", 6)]
    rows = [ProgressRow(time_ns=t, flow=f, received_bytes=n) for t, f, n in found]
    spool = ColumnSpool(ProgressRow, rows, block_rows=2)
    ordered = in_order(spool, ProgressRow, "time_ns", "flow")
    assert [row.received_bytes for row in ordered] == [5, 1, 4, 6, 3, 2]
    assert len(in_order(ColumnSpool(ProgressRow), ProgressRow, "time_ns")) == 0
