"""From a checked scenario to a directory of results: resolve, run every policy, write results and report."""

import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from controller.policies.fault import policy_fault
from experiments.errors import UserError
from experiments.live.live_file import LiveFile
from experiments.resolve.jobs import resolve
from experiments.results.code import code_version, file_digests
from experiments.results.gap import Ceiling
from experiments.results.trace_window import Window
from experiments.run.ceiling import ceilings
from experiments.run.directory import results_directory
from experiments.run.held_signal import HeldSignal
from experiments.run.placement_text import placement_text
from experiments.scenario.files import files_of
from experiments.scenario.scenario import Scenario
from experiments.scenario.text import to_yaml
from testbed.fabric import Fabric, FabricName, FabricUnavailable, RunFailed, RunProgress
from testbed.fabrics import missing_of
from testbed.job import Job
from testbed.record import RunRecord

RunListener = Callable[[str, RunProgress], None]
"""Called with the policy that runs and its progress."""


def run_scenario(
    scenario: Scenario,
    *,
    fabric: Fabric,
    out: Path | None,
    progress: RunListener,
    command: str = "",
    notes: Sequence[str] = (),
    warn: Callable[[str], None] | None = None,
    ceiling: bool = False,
    trace_window: Window | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Run every policy of `scenario` on `fabric`. Returns the run directory and its summary.

    `out` defaults to `runs/<date>-<time>-<scenario>`. `command` is the command line of the run, for the
    results. `notes` come before the notes on how the work was made. `warn` is called, before the first policy
    runs, with what makes the results say less than they seem to. With `ceiling`, the requests are run without
    a network, too (`experiments.run.ceiling`); only the simulated fabric can do that. `trace_window` is what
    part of the run the traces show. Nothing starts before the scenario is resolved, the fabric has what it
    needs, and the directory can be written.

    Raises `UserError` for what the user can correct, `FabricUnavailable`, and what `run_job` raises. If
    some policies have finished by then, their results are written, marked as not complete, and the
    exception has a note that says so. While results are written, the first Ctrl-C or SIGTERM is held
    until they are (`HeldSignal`).
    """
    started = datetime.now(UTC)
    code_version()  # read before anything runs, because the files may change during the run
    resolved = resolve(scenario)
    files = file_digests(files_of(scenario))
    first = resolved.jobs[0]
    if ceiling:
        _check_ceiling(fabric, first)
    missing = missing_of(fabric)
    if missing:
        raise FabricUnavailable(fabric.name, missing)
    # Imported late: the report loads matplotlib, which takes long, and above a run may still be refused.
    from experiments.report.run_report import write_report
    from experiments.results.limits import Resources
    from experiments.results.unused import unused_parts
    from experiments.results.writing import write_run

    def write(
        directory: Path,
        records: list[RunRecord],
        unfinished: Sequence[str] = (),
        reached: Ceiling | None = None,
    ) -> dict[str, Any]:
        summary = write_run(
            directory,
            scenario=scenario.name,
            fabric=fabric.name,
            seed=scenario.seed,
            scale=first.scale,
            resolved_yaml=to_yaml(scenario),
            notes=[*notes, *resolved.notes],
            records=records,
            placement_text=placement_text(first.placement),
            resources=Resources.of(first),
            files=files,
            command=command,
            started=started,
            unfinished=unfinished,
            unused=unused_parts(records, first.placement, first.topology),
            ceiling=reached,
            trace_window=trace_window,
        )
        write_report([directory], directory / "report.html")
        return summary

    if warn is not None:
        for warning in resolved.warnings:
            warn(warning)
    with (
        results_directory(out, scenario.name) as directory,
        LiveFile(directory, scenario=scenario.name, fabric=fabric.name, policies=scenario.policies) as live,
    ):

        def heard(policy: str, state: RunProgress) -> None:
            live.update(policy, state)
            progress(policy, state)

        records: list[RunRecord] = []
        reached = None
        try:
            for job in resolved.jobs:
                records.append(run_job(fabric, job, partial(heard, job.policy)))
            if ceiling:
                reached = ceilings(resolved.jobs, records, partial(run_job, fabric), heard)
        except BaseException as error:
            if records:
                unfinished = scenario.policies[len(records) :]
                # A full disk, for instance, must not hide what ended the run. Nor does a held signal.
                with contextlib.suppress(OSError), HeldSignal(directory):
                    write(directory, records, unfinished)
                    error.add_note(_where_results_are(directory, scenario.policies, len(records)))
            raise
        with HeldSignal(directory) as held:
            summary = write(directory, records, reached=reached)
        held.deliver(f"the results are in {directory}")
    return directory, summary


def _check_ceiling(fabric: Fabric, job: Job) -> None:
    if fabric.name != FabricName.SIM:
        raise UserError(f"--ceiling: the fabric {fabric.name} cannot do without a network; use --fabric sim")
    if not job.requests:
        raise UserError("--ceiling: single flows are nothing but network; use it with requests")


def _where_results_are(directory: Path, policies: Sequence[str], finished: int) -> str:
    text = f"results of {', '.join(policies[:finished])} are in {directory}"
    unfinished = ", ".join(policies[finished:])
    return f"{text}; {unfinished} did not finish" if unfinished else text


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
