"""A run directory has all files, and reads back as it was written."""

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from record_factory import RESOURCES, micro_record, serving_record

from experiments.errors import UserError
from experiments.results.reading import RunDirectory, read_run
from experiments.results.schemas import SCHEMAS
from experiments.results.summary import Summary
from experiments.results.writing import write_run
from testbed.fabric import RunFailed
from testbed.job import Scale
from testbed.record import FlowRow, RunRecord

RECORDS = [
    serving_record("fair", requests=6, layers=2),
    serving_record("mfs:U=0.3", requests=6, layers=2),
]


def write(out: Path, records: list[RunRecord], *, jobs: int = 1) -> Summary:
    return write_run(
        out,
        scenario="small",
        fabric="mininet",
        seed=3,
        scale=Scale(time_dilation=30, bytes_scale=0.001),
        resolved_yaml="name: small\n",
        notes=["arrivals are spread inside a tick"],
        records=records,
        placement_text=["p0: h1 h2 h3 h4"],
        resources=RESOURCES,
        command="mfs run small",
        jobs=jobs,
    )


@pytest.fixture(scope="module")
def summary(run_path: Path) -> Summary:
    return write(run_path, RECORDS)


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "small"


@pytest.fixture(scope="module")
def run(run_path: Path, summary: Summary) -> RunDirectory:
    return read_run(run_path)


def test_every_file_but_the_report_is_there_and_nothing_temporary(run: RunDirectory) -> None:
    top = {path.name for path in run.path.iterdir()}
    tables = {f"{name}.parquet" for name in SCHEMAS}
    texts = {"scenario.yaml", "versions.json", "summary.json", "timing.json"}
    assert top == tables | texts | {"fair", "mfs-U=0.3"}
    for folder in ("fair", "mfs-U=0.3"):
        names = {path.name for path in (run.path / folder).iterdir()}
        assert names == {"queues.json", "fidelity.json", "distributions.json", "trace.json.gz"}


def test_the_rows_of_each_policy_come_back_as_they_were(run: RunDirectory) -> None:
    for record in RECORDS:
        tables = run.tables[record.policy]
        for name in SCHEMAS:
            assert tuple(getattr(tables, name)) == getattr(record, name), name


def test_the_summary_on_disk_is_the_one_returned(run: RunDirectory, summary: Summary) -> None:
    assert summary == run.summary
    assert run.summary["link_gbps"]["h1->s1"] == 50.0


def test_a_user_can_tell_policies_stages_and_levels_apart_in_one_table(run: RunDirectory) -> None:
    table = pq.read_table(run.path / "flows.parquet")
    assert table.schema.equals(SCHEMAS["flows"])
    assert set(table["policy"].to_pylist()) == {"fair", "mfs:U=0.3"}
    assert set(table["stage"].to_pylist()) == {"S1", "S2", "S3"}
    assert set(table["level_last"].to_pylist()) <= set(range(1, 8))


def test_links_have_a_row_per_sample_and_level(run: RunDirectory) -> None:
    table = pq.read_table(run.path / "links.parquet")
    assert table.num_rows == 8 * sum(len(record.links) for record in RECORDS)


def test_queues_are_the_ones_read_back(run: RunDirectory) -> None:
    queues = json.loads((run.path / "fair" / "queues.json").read_text())
    assert queues == RECORDS[0].queues


def test_every_column_is_documented() -> None:
    text = (Path(__file__).parents[4] / "docs" / "reference" / "results.md").read_text()
    for table, schema in SCHEMAS.items():
        section = text.split(f"### `{table}.parquet`")[1].split("\n### ")[0]
        for column in schema.names:
            assert f"`{column}`" in section, f"{table}.{column} is not in docs/reference/results.md"


class Fatal(list[FlowRow]):
    """Rows that kill every process but this one when it reads them."""

    owner = os.getpid()

    def __iter__(self) -> Iterator[FlowRow]:
        if os.getpid() != self.owner:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__iter__()


def test_processes_that_are_killed_leave_nothing_half_written(tmp_path: Path) -> None:
    """Nor do those of an earlier attempt, and a file that only looks like theirs stays."""
    foreign, left = tmp_path / ".flows.parquet.backup", tmp_path / ".flows.parquet.0123abcd"
    foreign.touch()
    left.touch()
    with pytest.raises(RunFailed, match="was killed by SIGKILL"):
        write(tmp_path, [msgspec.structs.replace(RECORDS[0], flows=Fatal(RECORDS[0].flows))], jobs=2)
    assert list(tmp_path.rglob(".*")) == [foreign]
    left.touch()
    write(tmp_path, RECORDS, jobs=2)
    assert list(tmp_path.rglob(".*")) == [foreign]
    assert [len(read_run(tmp_path).tables[one.policy].flows) for one in RECORDS] == [
        len(one.flows) for one in RECORDS
    ]


def test_one_policy_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="each policy once"):
        write(tmp_path / "twice", [RECORDS[0], RECORDS[0]])


def test_a_run_without_any_rows_of_a_kind_still_has_its_tables(tmp_path: Path) -> None:
    write(tmp_path / "micro", [micro_record()])
    assert pq.read_table(tmp_path / "micro" / "spans.parquet").num_rows == 0
    assert read_run(tmp_path / "micro").tables["mfs"].requests == ()


def test_a_directory_that_is_no_run_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"finished run: it holds no summary\.json"):
        read_run(tmp_path)


def test_a_run_that_lost_a_table_says_which(tmp_path: Path) -> None:
    write(tmp_path / "lost", [micro_record()])
    (tmp_path / "lost" / "requests.parquet").unlink()
    with pytest.raises(UserError, match=r"lost is not .* finished run: it holds no requests\.parquet$"):
        read_run(tmp_path / "lost")


def test_the_digests_are_those_of_the_files(run: RunDirectory) -> None:
    digests = json.loads((run.path / "versions.json").read_text())["results"]
    files = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert digests.keys() == files - {"versions.json", "timing.json"}
    for name, digest in digests.items():
        assert hashlib.sha256((run.path / name).read_bytes()).hexdigest() == digest


def _emptied(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 0), path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _of_another_run(path: Path) -> None:
    path.write_text(path.read_text().replace('"small"', '"large"').replace("small\n", "large\n"))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((f"{name}.parquet", _emptied) for name in SCHEMAS),
        ("flows.parquet", _cut),
        ("summary.json", _cut),
        ("summary.json", _of_another_run),
        ("scenario.yaml", _of_another_run),
        ("mfs/distributions.json", _cut),
    ],
)
def test_a_file_that_is_not_as_the_run_wrote_it_is_refused_by_name(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    out = tmp_path / "run"
    write(out, [micro_record()])
    assert read_run(out).summary["scenario"] == "small"
    damage(out / name)
    with pytest.raises(UserError, match=f"{name}: not as the run wrote it"):
        read_run(out)


def test_a_run_from_before_there_were_digests_is_read_and_damage_is_told(
    tmp_path: Path,
) -> None:
    out = tmp_path / "old"
    write(out, [micro_record()])
    (out / "versions.json").write_text("{}")
    assert read_run(out).summary["scenario"] == "small"
    (out / "flows.parquet").write_bytes(b"not parquet")
    with pytest.raises(UserError, match="old cannot be read as a run directory"):
        read_run(out)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"results": 3}', "[" * 100_000])
def test_digests_that_are_damaged_are_no_digests(tmp_path: Path, content: str) -> None:
    write(tmp_path / "run", [micro_record()])
    (tmp_path / "run" / "versions.json").write_text(content)
    with pytest.raises(UserError, match=r"versions\.json"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"wall_s": {"mfs": "long"}}', '{"command": 3}'])
def test_a_damaged_timing_is_refused(tmp_path: Path, content: str) -> None:
    write(tmp_path / "run", [micro_record()])
    (tmp_path / "run" / "timing.json").write_text(content)
    with pytest.raises(UserError, match="run"):
        read_run(tmp_path / "run")
