"""Running the jobs of a scenario: one after the other, or beside each other on the simulated fabric."""

from collections.abc import Callable, Mapping, MutableMapping
from functools import partial

from controller.policies.fault import policy_fault
from experiments.run.kept import Kept
from experiments.side_by_side import Work, run_side_by_side
from testbed.fabric import Fabric, RunFailed, RunProgress
from testbed.job import Job
from testbed.record import RunRecord

DONE = "done"
"""The phase of a job that is through."""

KEPT = "kept from before"
"""The phase of a job that an earlier run has done."""

RunListener = Callable[[str, RunProgress], None]
"""Called with the name of a job, such as its policy, and its progress."""


RecordListener = Callable[[str, RunRecord], None]
"""Called with the name of a job and its record. What it raises ends the run."""


def _is_well(name: str, record: RunRecord) -> None:
    pass


def run_jobs(
    jobs: Mapping[str, Job],
    done: MutableMapping[str, RunRecord],
    *,
    fabric: Fabric,
    kept: Kept | None,
    at_once: int,
    progress: RunListener,
    meanwhile: Callable[[], None],
    look: RecordListener = _is_well,
) -> None:
    """Run `jobs`, by name, at most `at_once` at a time, and put their records into `done` as they end.

    A record that `kept` has is taken instead of a run, and new ones are kept there. Without `kept`, jobs run
    in this process. `meanwhile` is called while others run. `look` is called with each record that is new,
    if one job runs at a time. Raises what `run_job` and `run_side_by_side` raise.
    """
    left = dict(jobs)
    for name in jobs:
        found = None if kept is None else kept.find(name)
        if found is not None:
            done[name] = found
            del left[name]
            _tell_done(found, partial(progress, name), KEPT)
    if kept is not None and at_once > 1 and len(left) > 1:
        work = [(name, _work_of(fabric, name, job, kept)) for name, job in left.items()]

        def through(name: str, _: object) -> None:
            record = kept.find(name)
            assert record is not None  # its process has kept it
            done[name] = record

        run_side_by_side(work, jobs=at_once, progress=progress, through=through, meanwhile=meanwhile)
        return
    for name, job in left.items():
        record = run_job(fabric, job, partial(progress, name))
        look(name, record)
        if kept is not None:
            kept.keep(name, record)
        done[name] = record
        _tell_done(record, partial(progress, name), DONE)


def _work_of(fabric: Fabric, name: str, job: Job, kept: Kept) -> Work:
    def work(progress: Callable[[RunProgress], None]) -> None:
        record = run_job(fabric, job, progress)
        kept.keep(name, record)
        _tell_done(record, progress, DONE)

    return work


def _tell_done(record: RunRecord, progress: Callable[[RunProgress], None], phase: str) -> None:
    count = len(record.requests)
    progress(RunProgress(phase=phase, done=count, total=count, wall_s=record.wall_s))


def run_job(fabric: Fabric, job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
    """Run `job` on `fabric`. Raises what `fabric.run` raises.

    An exception in a hook of another package's policy becomes a `RunFailed` that names the policy.
    `RunFailed` is also raised if requests were lost: every request that arrived must be accounted for.
    """
    try:
        record = fabric.run(job, progress)
    except Exception as error:
        fault = policy_fault(error)
        if fault is None:
            raise
        raise RunFailed(fault) from error
    if len(record.requests) != len(job.requests):
        raise RunFailed(
            f"{job.policy}: {len(job.requests)} requests arrived, {len(record.requests)} were accounted for"
        )
    return record
