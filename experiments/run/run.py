"""From a checked scenario to a directory of results: resolve, run every policy, write results and report."""

import contextlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.held_signal import HeldSignal
from experiments.live.live_file import LiveFile
from experiments.resolve.jobs import resolve
from experiments.results.checksums import has_all_results
from experiments.results.code import code_version
from experiments.results.gap import Ceiling
from experiments.results.trace_window import Window
from experiments.run.all_jobs import DONE, RunListener, run_jobs
from experiments.run.ceiling import ceilings, check_ceiling
from experiments.run.directory import results_directory
from experiments.run.held_signal import HeldWhileWriting
from experiments.run.identity import identity_of
from experiments.run.kept import Kept, can_go_on
from experiments.run.placement_text import placement_text
from experiments.run.rehearse import AnotherTry, chosen_scale, watch
from experiments.run.scale_choice import ScaleChoice
from experiments.run.telling import RESULTS, Telling
from experiments.scenario.scenario import Scenario
from experiments.scenario.text import to_yaml
from testbed.fabric import Fabric, FabricName, FabricUnavailable, RunProgress
from testbed.fabrics import missing_of
from testbed.job import Job
from testbed.record import RunRecord


def _unheard(text: str) -> None:
    pass


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
    jobs: int = 1,
    words: Sequence[str] = (),
    tell: Callable[[str], None] = _unheard,
    retries: int = 0,
) -> tuple[Path, dict[str, Any]]:
    """Run every policy of `scenario` on `fabric`. Returns the run directory and its summary.

    `out` defaults to `runs/<date>-<time>-<scenario>`. `command` is the command line of the run, for the
    results. `notes` come before the notes on how the work was made. `warn` is called, before the first policy
    runs, with what makes the results say less than they seem to. With `ceiling`, the requests are run without
    a network, too (`experiments.run.ceiling`); only the simulated fabric can do that. `trace_window` is what
    part of the run the traces show. `jobs` is how many policies run at once, which only the simulated fabric
    can do, too. Nothing starts before the scenario is resolved, the fabric has what it needs, and the
    directory can be written.

    An emulated run measures the machine first, if its scale depends on it (`experiments.run.rehearse`).
    `tell` is called with what the scale is, and why. If a policy is not faithful, and would be at another
    scale, the run begins again there, up to `retries` times.

    Each policy that is through is kept (`experiments.run.kept`). If `out` has some that an earlier run of the
    same scenario by the same code has kept, only the others run.

    Raises `UserError` for what the user can correct, `FabricUnavailable`, and what `run_jobs` raises. If
    some policies have finished by then, their results are written, marked as not complete, and the
    exception has a note that says so; with `words`, the command line, it also gives the command that goes on.
    While results are written, the first Ctrl-C or SIGTERM is held until they are (`HeldWhileWriting`).
    """
    started = datetime.now(UTC)
    code_version()  # read before anything runs, because the files may change during the run
    resolved = resolve(scenario)
    made_with = identity_of([scenario])
    choice: ScaleChoice | None = None
    first = resolved.jobs[0]
    at_once = _at_once(fabric, jobs)
    if ceiling:
        check_ceiling(fabric.name, has_requests=bool(first.requests))
    missing = missing_of(fabric)
    if missing:
        raise FabricUnavailable(fabric.name, missing)

    def write(
        directory: Path,
        records: list[RunRecord],
        unfinished: Sequence[str] = (),
        reached: Ceiling | None = None,
    ) -> dict[str, Any]:
        directory.stat()  # raises if somebody has removed it: it would be made again
        with Telling(partial(progress, RESULTS)) as say:
            summary = write_all(directory, records, unfinished, reached, say)
            say.end(DONE)
        return summary

    def write_all(
        directory: Path,
        records: list[RunRecord],
        unfinished: Sequence[str],
        reached: Ceiling | None,
        say: Telling,
    ) -> dict[str, Any]:
        from experiments.results.limits import Resources
        from experiments.results.unused import unused_parts
        from experiments.results.writing import write_run

        summary = write_run(
            directory,
            scenario=scenario.name,
            fabric=fabric.name,
            seed=scenario.seed,
            scale=first.scale if choice is None else choice.scale,
            scale_notes=() if choice is None else choice.notes,
            machine=None if choice is None else choice.machine,
            resolved_yaml=to_yaml(scenario),
            notes=[*notes, *resolved.notes],
            records=records,
            placement_text=placement_text(first.placement),
            resources=Resources.of(resolved.jobs[0]),
            files=made_with.files,
            command=command,
            started=started,
            unfinished=unfinished,
            unused=unused_parts(records, first.placement, first.topology),
            ceiling=reached,
            jobs=at_once,
            trace_window=trace_window,
            say=say,
            meanwhile=load_report,
        )
        from experiments.report.run_report import write_report

        say("making the report")
        write_report(
            [directory],
            directory / "report.html",
            jobs=at_once,
            so_far=partial(say, "making the report"),
        )
        return summary

    if warn is not None:
        for warning in resolved.warnings:
            warn(warning)
    goes_on = partial(can_go_on, scenario=scenario, made_with=made_with)
    with (
        results_directory(out, scenario.name, goes_on) as directory,
        contextlib.closing(
            LiveFile(directory, scenario=scenario.name, fabric=fabric.name, policies=scenario.policies)
        ) as live,
    ):

        def heard(policy: str, state: RunProgress) -> None:
            live.update(policy, state)
            progress(policy, state)

        def rehearsed(name: str, state: RunProgress) -> None:
            live.update(first.policy, RunProgress(phase=name, wall_s=state.wall_s))
            progress(name, state)

        live.update(first.policy, RunProgress(phase="starting"))
        kept = None
        if ceiling or len(resolved.jobs) > 1:
            kept = Kept(directory)
            kept.begin(scenario, made_with)
        done: dict[str, RunRecord] = {}
        reached = None
        run = partial(
            run_jobs, fabric=fabric, kept=kept, at_once=at_once, progress=heard, meanwhile=load_report
        )

        again = None
        if kept is not None and words:
            again = shlex.join([*words, *([] if out else ["--out", str(directory)])])

        def say_how_to_go_on(error: BaseException) -> None:
            if again is not None:
                error.add_note(f"to go on: {again}")

        def run_at(chosen: ScaleChoice, tries_left: int) -> None:
            nonlocal choice, resolved
            choice, resolved = chosen, resolved.at(chosen.scale, chosen.notes)
            done.clear()
            if kept is not None:
                kept.begin_at(chosen)
            run(
                {job.policy: job for job in resolved.jobs},
                done,
                look=watch(scenario, first, chosen, tries_left),
            )

        def simulate(named: Mapping[str, Job]) -> Mapping[str, RunRecord]:
            found: dict[str, RunRecord] = {}
            run(named, found)
            return found

        try:
            chosen = None if kept is None else kept.choice
            if chosen is None:
                chosen = chosen_scale(scenario, resolved, fabric=fabric, progress=rehearsed)
            for note in chosen.notes:
                tell(note)
            for tries_left in range(retries, -1, -1):
                try:
                    run_at(chosen, tries_left)
                    break
                except AnotherTry as another:
                    chosen = another.choice
                    tell(chosen.notes[-1])
            if ceiling:
                reached = ceilings(resolved.jobs, [done[job.policy] for job in resolved.jobs], simulate)
        except BaseException as error:
            if kept is not None:  # a policy may be through that nobody has heard of yet
                done = kept.all_of(scenario.policies) | done
            through = [policy for policy in scenario.policies if policy in done]
            unfinished = [policy for policy in scenario.policies if policy not in done]
            if through:
                # A full disk, for instance, must not hide what ended the run. Nor does a held signal.
                with contextlib.suppress(OSError), HeldWhileWriting(directory, again):
                    write(directory, [done[policy] for policy in through], unfinished)
                    error.add_note(_where_results_are(directory, through, unfinished))
                say_how_to_go_on(error)
            elif kept is not None:
                kept.drop()
            raise
        with HeldWhileWriting(directory, again) as held:
            try:
                summary = write(directory, [done[job.policy] for job in resolved.jobs], reached=reached)
            except OSError as error:
                say_how_to_go_on(error)  # all records are there
                raise
            except KeyboardInterrupt:  # the second one, which may have cut off the report alone
                if kept is not None and has_all_results(directory):
                    kept.drop()
                raise
            if kept is not None:
                kept.drop()
        held.deliver(f"the results are in {directory}")
    return directory, summary


def load_report() -> None:
    """Load what the report needs, which takes long, while policies run in other processes.

    Some libraries swallow every exception while they load, and a Ctrl-C would be lost in one of them. One
    that loaded in part could not be loaded again, to write what is through.
    """
    with HeldSignal(all_of_them=True) as held:
        import experiments.report.run_report
        import experiments.results.writing  # noqa: F401
    held.deliver()


def _at_once(fabric: Fabric, jobs: int) -> int:
    if jobs > 1 and fabric.name != FabricName.SIM:
        raise UserError(
            f"--jobs: the fabric {fabric.name} runs one policy at a time, or results would be wrong;"
            " leave out --jobs, or use --fabric sim"
        )
    return jobs


def _where_results_are(directory: Path, through: Sequence[str], unfinished: Sequence[str]) -> str:
    text = f"results of {', '.join(through)} are in {directory}"
    return f"{text}; {', '.join(unfinished)} did not finish" if unfinished else text
