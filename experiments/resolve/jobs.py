"""From a scenario to its jobs, one per policy."""

import msgspec

from controller.spec import read_spec
from experiments.resolve.background import check_background, starvation_notes
from experiments.resolve.calibration import adds_overheads, overheads_of
from experiments.resolve.cluster import resolve_cluster
from experiments.resolve.doubts import doubts
from experiments.resolve.faults import resolve_faults
from experiments.resolve.left_out import left_out
from experiments.resolve.losses import check_losses
from experiments.resolve.no_effect import without_effect
from experiments.resolve.offered import offered_notes
from experiments.resolve.options import (
    answer_notes,
    background_notes,
    background_of,
    model_notes,
    reuse_notes,
    scheduler_options,
    serving_options,
    simulation_options,
    worker_options,
)
from experiments.resolve.same_batches import batches_note, with_batches_of
from experiments.resolve.scale import machine_scale, resolve_scale
from experiments.resolve.shared_links import shared_links_notes
from experiments.resolve.work import resolve_work
from experiments.resolve.work_demand import demand
from experiments.scenario.scenario import Scenario
from testbed.job import MODEL_SCALE, Job, Scale


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """A job per policy, and notes on how the work was made. Jobs differ only in `policy` and `control`.

    `warnings` are those notes that a user should read before the run, and `scale_notes` those on the scale.
    """

    jobs: tuple[Job, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    scale_notes: tuple[str, ...] = ()

    def at(self, scale: Scale, scale_notes: tuple[str, ...]) -> "Resolved":
        """Return the same jobs at another scale."""
        notes = [note for note in self.notes if note not in self.scale_notes]
        return msgspec.structs.replace(
            self,
            jobs=tuple(msgspec.structs.replace(job, scale=scale) for job in self.jobs),
            notes=(*notes, *scale_notes),
            scale_notes=scale_notes,
        )


def resolve(scenario: Scenario, *, most_requests: int | None = None) -> Resolved:
    """Decide everything that the scenario leaves open. Reads its trace and calibration, if it names any.

    With `most_requests`, the jobs get only that many of the requests. The trace is still read and checked
    as a whole, so everything that can be wrong with the scenario is found, and sooner.

    A load is a share of what the cluster can do without its faults.

    Raises `UserError` for ranks that cannot be placed, faults of what there is not and a prefix cache that is
    too small (the message names the key), for background transfers with which the run would not end, for a
    malformed trace (it names the line) and for a calibration that cannot be used.
    """
    cluster = resolve_cluster(scenario)
    base = Job(
        scenario=scenario.name,
        policy=scenario.policies[0],
        seed=scenario.seed,
        topology=cluster.topology,
        placement=cluster.placement,
        scale=MODEL_SCALE,  # decided below, once the work is known
        model=cluster.model,
        gpu=cluster.gpu,
        serving=serving_options(scenario, cluster),
        scheduler=scheduler_options(scenario),
        workers=worker_options(scenario),
        simulation=simulation_options(scenario),
    )
    faults = resolve_faults(scenario, cluster.topology, cluster.placement)
    work = resolve_work(scenario, base, most_requests=most_requests)
    # From here on: a load and an unloaded TTFT are those of a network without background transfers or faults.
    background = background_of(scenario, base.placement) if work.requests else None
    base = msgspec.structs.replace(
        base, requests=work.requests, flows=work.flows, background=background, faults=faults
    )
    scale, scale_notes = resolve_scale(scenario, base)
    base = msgspec.structs.replace(base, scale=scale)
    if adds_overheads(scenario.simulation):
        overheads = overheads_of(scenario, machine_scale(scenario, base)[0])
        simulation = msgspec.structs.replace(base.simulation, overheads=overheads)
        base = msgspec.structs.replace(base, simulation=simulation)
    check_losses(scenario, base)
    check_background(scenario, base)
    of = scenario.serving.batches_of
    if of is not None and base.requests and most_requests is None:
        base = with_batches_of(of, base, scenario.policies)
    each = demand(base, base.requests) if base.requests else None
    warnings = (
        *model_notes(base),
        *without_effect(scenario, base),
        *left_out(scenario, base),
        *doubts(base),
        *(() if each is None else shared_links_notes(each)),
        *offered_notes(scenario.workload, base, each, work.rate_rps),
        *starvation_notes(base),
    )
    return Resolved(
        jobs=tuple(
            msgspec.structs.replace(
                base, policy=policy, control=read_spec(policy, **base.scheduler.defaults()).control
            )
            for policy in scenario.policies
        ),
        notes=(
            *work.notes,
            *warnings,
            *answer_notes(base),
            *reuse_notes(base),
            *background_notes(base),
            *([batches_note(of)] if of is not None and base.plans else ()),
            *scale_notes,
        ),
        warnings=warnings,
        scale_notes=scale_notes,
    )
