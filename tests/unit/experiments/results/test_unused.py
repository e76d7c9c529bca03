"""Units, decode workers, servers and NICs that nothing used are named."""

from pathlib import Path

import msgspec

from experiments.resolve.jobs import resolve
from experiments.results.unused import unused_parts
from experiments.run.all_jobs import run_job
from experiments.run.run import run_scenario
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job
from testbed.record import RunRecord


def job_of(name: str, *settings: str) -> Job:
    return resolve(load_scenario(name, [override(text) for text in settings])).jobs[0]


def played(job: Job) -> RunRecord:
    return run_job(FABRICS["sim"](), job, lambda state: None)


def told(job: Job, *records: RunRecord) -> list[str]:
    return unused_parts(records or [played(job)], job.placement, job.topology)


def test_a_run_that_uses_everything_is_told_nothing_of() -> None:
    assert told(job_of("quickstart", "workload.requests=12")) == []


def test_units_workers_servers_and_nics_without_use_are_named() -> None:
    """One request: unit p0 and decode worker 8 have it. p1 is on h5 to h8, worker 9 on h10; h11 is empty."""
    job = job_of("quickstart", "workload.requests=1", "topology.servers=11")
    assert told(job) == [
        "no rank is on server h11",
        "no request was prefilled on unit p1",
        "no request had decode worker 9",
        "no flow crossed NIC h5, h6, h7, h8, h10",
    ]


def test_a_decode_worker_of_several_ranks_is_named_by_its_first() -> None:
    """Workers 8, 9 and 10, 11. One request: the other worker is named once, and the used one is not."""
    job = job_of("quickstart", "workload.requests=1", "units.decode_ranks=4", "units.decode_tp=2")
    assert [text for text in told(job) if "worker" in text] == ["no request had decode worker 10"]


def test_what_only_some_policies_left_unused_is_told_with_their_names() -> None:
    job = job_of("quickstart", "workload.requests=2", "serving.router=round-robin")
    record = played(job)
    other = msgspec.structs.replace(
        record,
        policy="other",
        requests=tuple(msgspec.structs.replace(row, unit="p0") for row in record.requests),
    )
    assert told(job, record, other) == ["no request was prefilled on unit p1 under other"]


def test_many_are_counted_and_not_all_named() -> None:
    """A micro workload of two flows into h3 on 13 servers: ten are idle."""
    job = job_of("two-flows", "topology.servers=13")
    assert told(job) == ["no flow crossed NIC h4, h5, h6, h7, h8, h9, h10, h11 and 2 more"]


def test_a_run_writes_them_in_its_summary(tmp_path: Path) -> None:
    scenario = load_scenario("two-flows", [override("topology.servers=4"), override("policies=[fair]")])
    _, summary = run_scenario(
        scenario, fabric=FABRICS["sim"](), out=tmp_path / "run", progress=lambda policy, state: None
    )
    assert summary["unused"] == ["no flow crossed NIC h4"]
    assert "no flow crossed NIC h4" in summary["notes"]
