"""The scale of an emulated run: chosen once, before the first policy, and the same for all of them."""

from collections.abc import Callable
from functools import partial

import msgspec

from experiments.resolve.cluster import fastest_nic_bps
from experiments.resolve.jobs import Resolved
from experiments.resolve.rehearsal import REHEARSAL, machine_of, rehearsal_job
from experiments.resolve.scale import is_open, longest_dilation, machine_scale
from experiments.results.cure import cure_of
from experiments.run.all_jobs import DONE, RunListener, run_job
from experiments.run.scale_choice import ScaleChoice
from experiments.scenario.scenario import Scenario
from testbed.coordinator.real_model import is_real
from testbed.fabric import Fabric, FabricName, RunProgress
from testbed.job import Job, Scale
from testbed.record import RunRecord


class AnotherTry(Exception):
    """A policy was not faithful, and the run begins again with `choice`."""

    def __init__(self, choice: ScaleChoice) -> None:
        self.choice = choice
        super().__init__("the run begins again at another scale")


def chosen_scale(
    scenario: Scenario, resolved: Resolved, *, fabric: Fabric, progress: RunListener
) -> ScaleChoice:
    """Return the scale for a run of `resolved`. Raises what `run_job` raises, if there is a rehearsal.

    A rehearsal is for the emulated fabric, and only if the scenario leaves something open that depends on it.
    """
    first = resolved.jobs[0]
    section = scenario.scale
    if fabric.name != FabricName.MININET or not section.rehearse or not is_open(section):
        return ScaleChoice(scale=first.scale, notes=resolved.scale_notes)
    rehearsal = rehearsal_job(resolved.jobs[-1])
    record = run_job(fabric, rehearsal, partial(progress, REHEARSAL))
    count = len(rehearsal.requests or rehearsal.flows)
    progress(REHEARSAL, RunProgress(phase=DONE, done=count, total=count, wall_s=record.wall_s))
    machine = machine_of(record, rehearsal, fastest_nic_bps(scenario.topology))
    scale, notes = machine_scale(scenario, first, machine)
    return ScaleChoice(scale=scale, notes=notes, machine=machine)


def watch(
    scenario: Scenario, job: Job, choice: ScaleChoice, tries_left: int
) -> Callable[[str, RunRecord], None]:
    """Return what looks at each record of a run with `choice`. It raises `AnotherTry` for the first one that
    is not faithful, if there are tries left and another scale would have made it faithful."""

    def look(policy: str, record: RunRecord) -> None:
        again = another(scenario, job, choice, record) if tries_left else None
        if again is not None:
            raise AnotherTry(again)

    return look


def another(scenario: Scenario, job: Job, choice: ScaleChoice, record: RunRecord) -> ScaleChoice | None:
    """Return the choice after `record` was not faithful. None if it was, or if no scale within
    `scale.most_wall_s` would have helped."""
    real = is_real(job)
    cure = cure_of(record.fidelity.checks, choice.scale, real_bytes=real)
    if cure is None:
        return None
    now = choice.scale
    most = max(longest_dilation(scenario.scale, job), now.time_dilation)
    if cure.time_dilation > most:
        bytes_scale = float(f"{cure.bytes_scale * (1.0 if real else most / cure.time_dilation):.4g}")
        cure = Scale(time_dilation=most, bytes_scale=bytes_scale)
    if cure == now:
        return None
    failed = ", ".join(check.name for check in record.fidelity.checks if not check.ok)
    note = (
        f"begun again: at time x{now.time_dilation:g}, bytes x{now.bytes_scale:g}, {record.policy} was not"
        f" faithful ({failed}); now time x{cure.time_dilation:g}, bytes x{cure.bytes_scale:g}"
    )
    return msgspec.structs.replace(choice, scale=cure, notes=(*choice.notes, note))
