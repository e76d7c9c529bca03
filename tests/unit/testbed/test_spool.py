"""A spool behaves like a list, without growing in memory."""

import errno
import gc
import os
import tracemalloc
from itertools import islice, pairwise

import pytest

from controller.flow import Decision, Level
from testbed import spool
from testbed.record import ProgressRow
from testbed.spool import Spool


def row(i: int) -> ProgressRow:
    return ProgressRow(time_ns=i, flow=f"f{i}", received_bytes=i * i)


def spooled(count: int, *, block_bytes: int = 100) -> Spool[ProgressRow]:
    """A spool with about ten rows per block: a row takes about ten bytes."""
    return Spool(ProgressRow, map(row, range(count)), block_bytes=block_bytes)


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


def test_enums_and_absent_values_survive() -> None:
    first = Decision(time_ns=1, flow="f", level_from=None, level_to=Level.P3, reason="µ ≥ 0.5")
    (back,) = Spool(Decision, [first], block_bytes=1)
    assert back == first
    assert back.level_to is Level.P3


def test_several_iterations_go_on_side_by_side() -> None:
    rows = spooled(100)
    one, other = iter(rows), iter(rows)
    assert list(islice(one, 45)) == [row(i) for i in range(45)]
    assert list(islice(other, 12)) == [row(i) for i in range(12)]
    assert list(one) == [row(i) for i in range(45, 100)]
    assert all(b.time_ns - a.time_ns == 1 for a, b in pairwise(other))


def test_an_iteration_ends_where_the_rows_ended_when_it_began() -> None:
    rows = spooled(15)
    under_way = iter(rows)
    assert next(under_way) == row(0)
    rows.extend(map(row, range(15, 60)))
    assert list(under_way) == [row(i) for i in range(1, 15)]
    assert list(rows) == [row(i) for i in range(60)]


def test_spools_are_equal_when_their_rows_are() -> None:
    assert spooled(30) == spooled(30, block_bytes=1000)
    assert spooled(30) != spooled(29)
    assert Spool(ProgressRow, [row(1)]) != Spool(ProgressRow, [row(2)])


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

    monkeypatch.setattr(spool.tempfile, "gettempdir", lambda: "/var/tmp")
    monkeypatch.setattr(spool.os, "pwrite", full)
    with pytest.raises(OSError, match="No space left on device: '/var/tmp'") as raised:
        spooled(100)
    assert "TMPDIR" in raised.value.__notes__[0]


def test_what_is_written_in_parts_is_written_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(spool.os, "pwrite", lambda file, data, at: whole(file, data[:7], at))
    assert list(spooled(100)) == [row(i) for i in range(100)]


def test_200_000_rows_are_written_and_read_in_a_few_megabytes() -> None:
    # As a list they would take 200,000 times about 170 bytes: 34 MB.
    tracemalloc.start()
    try:
        rows = spooled(200_000, block_bytes=spool.BLOCK_BYTES // 4)
        assert sum(one.time_ns for one in rows) == 200_000 * 199_999 // 2
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000
