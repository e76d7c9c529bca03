"""From a checked scenario to a directory of results: resolve, run every policy, write."""

import contextlib
import errno
import fcntl
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from controller.policies.fault import policy_fault
from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.scenario.scenario import Scenario
from experiments.scenario.text import to_yaml
from testbed.fabric import Fabric, FabricUnavailable, Progress, RunFailed
from testbed.fabrics import missing_of
from testbed.job import Job, Placement, RankSpec
from testbed.record import RunRecord
from testbed.serving.decoding import with_last_tokens
from testbed.serving.placement import coordinates

Listener = Callable[[str, Progress], None]
"""Told the policy that runs and how far it is."""


def run_scenario(
    scenario: Scenario,
    *,
    fabric: Fabric,
    out: Path | None,
    progress: Listener,
    command: str = "",
    notes: Sequence[str] = (),
) -> tuple[Path, dict[str, Any]]:
    """Run every policy of `scenario` on `fabric`; returns the run directory and its summary.

    `out` defaults to `runs/<date>-<time>-<scenario>`; `command` is the line that asked for the run,
    for the report; `notes` come before those on how the work was made. Nothing is started before the
    scenario is resolved, the fabric has said that it can work here and the directory can be written to.

    Raises `UserError` for what the user can mend, and what `run_job` raises. Where that ends a run after
    some policy was through, the results of those that were are written, as not complete, and the
    exception has a note that says so.
    """
    started = datetime.now(UTC)
    resolved = resolve(scenario)
    first = resolved.jobs[0]
    missing = missing_of(fabric)
    if missing:
        raise FabricUnavailable(fabric.name, missing)
    # Only now: it loads matplotlib, which has things to say about homes it cannot write to.
    from experiments.results.writing import write_run

    def write(directory: Path, records: list[RunRecord], unfinished: Sequence[str] = ()) -> dict[str, Any]:
        return write_run(
            directory,
            scenario=scenario.name,
            fabric=fabric.name,
            seed=scenario.seed,
            scale=first.scale,
            resolved_yaml=to_yaml(scenario),
            notes=[*notes, *resolved.notes],
            records=records,
            placement_text=placement_text(first.placement),
            link_bps={link.id: link.bps for link in first.topology.links},
            command=command,
            started=started,
            unfinished=unfinished,
        )

    with results_directory(out, scenario.name) as directory:
        records: list[RunRecord] = []
        try:
            for job in resolved.jobs:
                records.append(run_job(fabric, job, partial(progress, job.policy)))
        except BaseException as error:
            if records:
                unfinished = scenario.policies[len(records) :]
                with contextlib.suppress(OSError):  # of a full disk: what ended the run is what is told
                    write(directory, records, unfinished)
                    error.add_note(
                        f"results of {', '.join(scenario.policies[: len(records)])} are in {directory};"
                        f" {', '.join(unfinished)} did not get to an end"
                    )
            raise
        summary = write(directory, records)
    return directory, summary


def run_job(fabric: Fabric, job: Job, progress: Callable[[Progress], None]) -> RunRecord:
    """`fabric.run`; what a policy of another package raises in a hook becomes a `RunFailed` that names it.

    Also raises `RunFailed` when requests were lost: each one that arrived has to be accounted for.
    """
    try:
        record = fabric.run(job, progress)
    except Exception as error:
        fault = policy_fault(error)
        if fault is None:
            raise
        raise RunFailed(fault) from error
    record = msgspec.structs.replace(record, requests=with_last_tokens(job, record.requests))
    if len(record.requests) != len(job.requests):
        raise RunFailed(
            f"{job.policy}: {len(job.requests)} requests arrived, {len(record.requests)} were accounted for"
        )
    return record


def placement_text(placement: Placement) -> list[str]:
    """One line per server that has ranks: `h1: rank 0 (p0, replica 0, ep0), rank 8 (decode, 0)`.

    Of a rank's stage, replica, part of the sequence and tensor-parallel place those are told of which its
    unit has several.
    """
    by_server: dict[str, list[str]] = {}
    for spec in placement.ranks:
        by_server.setdefault(spec.server, []).append(f"rank {spec.rank} ({_seat(placement, spec)})")
    return [f"{server}: {', '.join(places)}" for server, places in by_server.items()]


def _seat(placement: Placement, spec: RankSpec) -> str:
    if spec.unit is None:
        return f"{spec.role.value}, {spec.index}"
    at = coordinates(placement, spec.unit, spec.index)
    words = [
        f"{name} {number}"
        for name, number, count in (
            ("stage", at.stage, placement.pp),
            ("replica", at.replica, len(placement.replicas[spec.unit])),
            ("part", at.part, placement.sp),
            ("tp", at.tp, placement.tp),
        )
        if count > 1
    ]
    if at.experts is not None:
        words.append(at.experts.removeprefix(f"{spec.unit}."))
    return ", ".join((spec.unit, *words))


@contextlib.contextmanager
def results_directory(out: Path | None, scenario: str) -> Iterator[Path]:
    """A directory that is there, empty and writable; taken away again if the run leaves it empty.

    A full disk is an `OSError` that names a path, the directory's if need be: writing to a file that is
    open names none.
    """
    made = out is None or not out.exists()
    try:
        directory = new_directory(scenario) if out is None else _empty_directory(out)
        with tempfile.TemporaryFile(dir=directory):
            pass
        lock = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise UserError(
            f"{out or Path('runs').resolve()}: cannot write results there: {error.strerror}"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            made = False
            raise UserError(f"--out {directory}: another run is at work there") from None
        yield directory
    except OSError as error:
        if error.errno == errno.ENOSPC and error.filename is None:
            error.filename = str(directory)
        raise
    finally:
        os.close(lock)
        if made:
            with contextlib.suppress(OSError):  # not empty: there are results in it
                directory.rmdir()


def _empty_directory(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; name a directory that is new or empty")
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise UserError(f"--out {out}: is not empty; name a directory that is new or empty")
    return out


def new_directory(name: str) -> Path:
    """`runs/<date>-<time>-<name>`, made; with a number behind it if another run was as quick."""
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    for n in itertools.count(1):
        directory = Path("runs") / (stem if n == 1 else f"{stem}-{n}")
        with contextlib.suppress(FileExistsError):
            directory.mkdir(parents=True)
            break
    return directory
