"""A record in a file comes back equal, row by row and block by block."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from record_factory import micro_record, serving_record

from controller.flow import Decision, Level
from testbed.columns import ColumnSpool, batches_of
from testbed.record import FlowRow, RunRecord
from testbed.record_file import read_record, write_record
from testbed.simulation.watch import LinkSamples

TABLES = ("requests", "flows", "decisions", "spans", "links", "progress")


@pytest.mark.parametrize("record", [serving_record("mfs"), micro_record()], ids=["requests", "flows"])
def test_a_record_comes_back_equal(tmp_path: Path, record: RunRecord) -> None:
    write_record(tmp_path / "r", record)

    back = read_record(tmp_path / "r")
    (tmp_path / "r").unlink()

    for name in TABLES:
        assert list(getattr(back, name)) == list(getattr(record, name)), name
    for name in RunRecord.__struct_fields__:
        if name not in (*TABLES, "permit_latency_ms"):
            assert getattr(back, name) == getattr(record, name), name
    assert list(back.permit_latency_ms) == list(record.permit_latency_ms)


def test_blocks_are_those_of_the_record(tmp_path: Path) -> None:
    """Five rows in blocks of two: the last one has a single row."""
    row = Decision(time_ns=0, flow="f", level_from=None, level_to=Level.P1, reason="")
    rows = [msgspec.structs.replace(row, time_ns=i) for i in range(5)]
    spool = ColumnSpool(Decision, rows, block_rows=2)
    write_record(tmp_path / "r", msgspec.structs.replace(micro_record(), decisions=spool))

    back = read_record(tmp_path / "r").decisions

    assert [batch.num_rows for batch in batches_of(back)] == [2, 2, 1]
    assert (len(back), back[3], list(back)) == (5, rows[3], rows)


def test_batches_are_those_of_the_record_with_all_words_of_their_dictionaries(tmp_path: Path) -> None:
    """Samples in arrays have the names of all ports in each batch. Tables tell what words a batch has."""
    times, ports = np.arange(20_000), np.repeat([2, 0], 10_000)
    links = LinkSamples(("a->s", "s->b", "s->c"), times, ports, np.ones((20_000, 8), dtype=np.int64))
    write_record(tmp_path / "r", msgspec.structs.replace(micro_record(), links=links))

    back = read_record(tmp_path / "r").links

    batches = list(batches_of(links))
    assert len(batches) > 1
    for found, batch in zip(batches_of(back), batches, strict=True):
        assert found.equals(batch)
        assert found.column("port").dictionary.equals(batch.column("port").dictionary)


def test_rows_of_a_record_that_was_read_cannot_become_more(tmp_path: Path) -> None:
    write_record(tmp_path / "r", micro_record())
    flows = read_record(tmp_path / "r").flows
    assert isinstance(flows, ColumnSpool)
    row: FlowRow = flows[0]

    with pytest.raises(ValueError, match="only others write"):
        flows.extend([row] * 10_000)


@pytest.mark.parametrize("content", [b"", b"12345678", b"\0" * 20, b"x" * 20])
def test_a_file_without_a_record_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r").write_bytes(content)

    with pytest.raises(ValueError, match="holds no record"):
        read_record(tmp_path / "r")
