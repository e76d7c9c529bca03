"""Tables are written and read row group by row group, whatever the number of rows."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from record_factory import micro_record, serving_record
from result_rows import flow_row, request_row

from experiments.results import parquet as result_tables
from experiments.results.parquet import TableRows, read_tables, write_tables
from experiments.results.schemas import SCHEMAS
from testbed.columns import ColumnSpool
from testbed.record import FlowRow, LinkSample, RequestRow, RunRecord

GROUP = 50
WORLDS = str(Path(__file__).parents[3] / "worlds")


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    return [serving_record(policy, requests=6, layers=2) for policy in ("fair", "mfs")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, records: list[RunRecord]) -> Path:
    """Row groups are so small that every table but one has several for each policy."""
    out = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result_tables, "GROUP_ROWS", GROUP)
        write_tables(out, records)
    return out


def test_a_row_group_holds_rows_of_one_policy_and_only_so_many(run: Path) -> None:
    with pq.ParquetFile(run / "flows.parquet") as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        policies = [
            set(file.read_row_group(i, columns=["policy"])["policy"].to_pylist())
            for i in range(file.num_row_groups)
        ]
    assert max(sizes) == GROUP
    assert len(sizes) >= 4
    assert policies == sorted(policies, key=min)
    assert all(len(names) == 1 for names in policies)


def test_rows_come_back_in_order_through_all_groups(run: Path, records: list[RunRecord]) -> None:
    for record in records:
        tables = read_tables(run, record.policy)
        for name in SCHEMAS:
            assert tuple(getattr(tables, name)) == tuple(getattr(record, name)), name
        assert len(tables.flows) == len(record.flows)


def test_rows_are_found_by_what_is_in_their_columns(run: Path, records: list[RunRecord]) -> None:
    record = records[1]
    flows, links = TableRows(run, FlowRow, "mfs"), TableRows(run, LinkSample, "mfs")
    few = [row.id for row in record.flows[3:90:20]]
    assert [row.id for row in flows.where(id=few)] == few
    assert list(flows.where(batch=["b1"], stage=["S3"])) == [
        row for row in record.flows if row.batch == "b1" and row.stage.value == "S3"
    ]
    assert list(links.where(port=["s1->h9"])) == [row for row in record.links if row.port == "s1->h9"]
    assert list(flows.where(id=[])) == []


def test_rows_are_found_in_a_group_that_other_policies_share(
    run: Path, records: list[RunRecord], tmp_path: Path
) -> None:
    """As in a table that another program has written. Some flows of the group have no batch."""
    whole = pq.read_table(run / "flows.parquet")
    pq.write_table(whole, tmp_path / "flows.parquet", row_group_size=len(whole))
    for record in records:
        flows = TableRows(tmp_path, FlowRow, record.policy)
        assert len(flows) == len(record.flows) < len(whole)
        assert tuple(flows) == tuple(record.flows)
        assert list(flows.where(batch=["b1"])) == [row for row in record.flows if row.batch == "b1"]


def test_a_value_that_all_rows_of_a_group_have_does_not_stand_for_those_without_one(tmp_path: Path) -> None:
    flows = (flow_row(id="in", batch="b1"), flow_row(id="out", batch=None))
    write_tables(tmp_path, [msgspec.structs.replace(micro_record(), flows=flows)])
    found = TableRows(tmp_path, FlowRow, micro_record().policy).where(batch=["b1"])
    assert [row.id for row in found] == ["in"]


def test_only_the_groups_that_may_have_a_value_are_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows are in the order of requests, so those of a request are in a few neighbouring row groups."""
    read: list[int] = []
    whole = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, i: int, **options: object) -> object:
        read.append(i)
        return whole(self, i, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    assert all(row.request == 1 for row in TableRows(run, FlowRow, "mfs").where(request=[1]))
    with pq.ParquetFile(run / "flows.parquet") as file:
        assert 0 < len(read) < file.num_row_groups // 2 + 1


def test_rows_are_found_at_their_places(run: Path, records: list[RunRecord], tmp_path: Path) -> None:
    """Also in a table that another program has written, where policies share a group."""
    whole = pq.read_table(run / "flows.parquet")
    pq.write_table(whole, tmp_path / "flows.parquet", row_group_size=len(whole) // 3)
    for out in (run, tmp_path):
        for record in records:
            flows = TableRows(out, FlowRow, record.policy)
            for places in ([], [0], [3, 4, GROUP - 1, GROUP, len(record.flows) - 1], range(len(flows))):
                rows = [record.flows[i] for i in places]
                found = flows.at(["id", "batch", "finish_ns"], np.array(places, dtype=np.int64))
                assert found["id"].to_pylist() == [row.id for row in rows]
                assert found["batch"].to_pylist() == [row.batch for row in rows]
                assert found["finish_ns"].to_pylist() == [row.finish_ns for row in rows]


def test_lists_of_texts_may_be_empty_or_hold_one_text_often(tmp_path: Path) -> None:
    units: list[tuple[str, ...]] = [(), ("p0",), ("p1", "p0", "p1"), (), ("p0",)]
    requests = [request_row(request=i, moved_by=lost) for i, lost in enumerate(units)]
    paths: list[tuple[str, ...]] = [("a->b", "b->c"), (), ("b->c",), ("a->b", "b->c")]
    flows = [flow_row(id=f"f{i}", path=path) for i, path in enumerate(paths)]
    record = msgspec.structs.replace(micro_record(), flows=flows, requests=requests)
    write_tables(tmp_path, [record])
    assert [row.path for row in TableRows(tmp_path, FlowRow, record.policy)] == paths
    assert list(TableRows(tmp_path, RequestRow, record.policy)) == requests


def test_other_programs_read_plain_texts_and_small_numbers(run: Path, records: list[RunRecord]) -> None:
    """Also of a column whose texts Parquet is given as codes, and of lists of texts."""
    table = pq.read_table(run / "flows.parquet")
    assert table.schema.equals(SCHEMAS["flows"])
    rows = [row for record in records for row in record.flows]
    assert table["path"].to_pylist() == [list(row.path) for row in rows]
    assert table["coflow"].to_pylist() == [row.coflow for row in rows]
    assert pq.read_schema(run / "requests.parquet").equals(SCHEMAS["requests"])


def test_a_spool_of_50_000_flows_is_written_and_read_in_little_memory(tmp_path: Path) -> None:
    """As one row group this takes 125 MB. It takes 37 MB, most of which Arrow needs for any table."""
    program = f"""
import resource, sys
from pathlib import Path
sys.path[:0] = [{str(Path(__file__).parent)!r}, {WORLDS!r}]
import test_parquet
test_parquet.write_and_read(Path({str(tmp_path)!r}), 1_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
test_parquet.write_and_read(Path({str(tmp_path)!r}), 50_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(told.stdout) < 60_000  # kB


def write_and_read(out: Path, count: int) -> None:
    flows = ColumnSpool(
        FlowRow,
        (flow_row(id=f"f{i}", submit_ns=i, finish_ns=2 * i, batch=f"b{i // 100}") for i in range(count)),
    )
    write_tables(out, [msgspec.structs.replace(micro_record(), flows=flows)])
    assert sum(row.finish_ns for row in TableRows(out, FlowRow, "mfs")) == count * (count - 1)
