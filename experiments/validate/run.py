"""`mfs validate`: the same scenario and seed on the emulated and on the simulated fabric, side by side.

The fabrics are compared twice: each forms its own batches, and the simulator runs the batches that the
emulated run formed (`testbed.serving.replay`). Only in the second case do both have the same flows.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from experiments.atomic_file import write_text
from experiments.calibrate.links import calibrate, members_for
from experiments.resolve.calibration import Calibration, write_calibration
from experiments.resolve.jobs import resolve
from experiments.run.all_jobs import RunListener, run_job
from experiments.run.directory import results_directory
from experiments.run.run import run_scenario
from experiments.scenario.scenario import Scenario
from experiments.validate.compare import RunTimes, compare, matched_flows, run_times
from experiments.validate.emulated import Emulated, Rows, check_same_work, read_emulated
from experiments.validate.goals import goals_of
from experiments.validate.ranking import RankedBy, Ranking, rank
from experiments.validate.result import MatchedFlows, PolicyResult, Simulations, Validation, as_json
from testbed.emulation.nominal import link_overheads
from testbed.fabric import Fabric, FabricName
from testbed.job import Job, Overheads, Scale
from testbed.serving.replay import NotReplayable, plans_of
from workers.plan import BatchPlan

MEAN_ERROR = 0.10
"""Largest allowed error of mean TTFT and of mean collective completion time."""

FLOW_SHARE = 0.90
"""Least share of flows that have to be right."""

TTFT_TIE = 0.03
SLO_TIE_REQUESTS = 2
"""How far apart two emulated runs of one seed were: mean TTFT by this share, SLO attainment by this many
requests. Policies that are no further apart tie."""

CALIBRATION_FILE = "calibration.json"
EMULATED = "emulated"


def validate(
    scenario: Scenario,
    *,
    emulator: Fabric,
    simulator: Fabric,
    emulated: Path | None,
    calibrates: bool,
    repeats: bool,
    out: Path | None,
    progress: RunListener,
    command: str,
) -> tuple[Path, Validation]:
    """Emulate `scenario`, or read its runs from `emulated`; simulate, compare and write the result.

    Simulates with ideal links, with links as the emulated fabric configures them, and with the scenario's
    overheads if it has any (`simulation.calibration`, `simulation.overheads`). `calibrates`: measure these
    first. `repeats`: emulate each policy once more, with the batches of its first run. Returns the directory
    and the content of its `validate.json`. The directory also has `report.html`, the emulated run unless it
    was read, and the calibration if it was made.
    """
    with results_directory(out, f"validate-{scenario.name}") as directory:
        if calibrates:
            calibration = _calibrated(scenario, emulator, progress)
            write_calibration(directory / CALIBRATION_FILE, calibration)
            scenario = _with_calibration(scenario, directory / CALIBRATION_FILE)
        if emulated is None:
            on_machine = _on(FabricName.MININET, scenario)
            emulated = directory / EMULATED
            run_scenario(
                on_machine,
                fabric=emulator,
                out=emulated,
                progress=progress,
                command=command,
            )
        runs = read_emulated(emulated)
        result, flows = compare_with(
            runs,
            scenario,
            simulator=simulator,
            repeat=partial(run_job, emulator) if repeats else None,
            progress=progress,
            command=command,
        )
        write_text(directory / "validate.json", as_json(result))
        from experiments.validate.page import render_validation  # only now: it loads matplotlib

        write_text(directory / "report.html", render_validation(result, flows))
    return directory, result


def _at_scale(scale: Scale, scenario: Scenario) -> Scenario:
    """Fill in what `scenario` leaves open: an emulated run has measured the machine before it chose."""
    section = scenario.scale
    filled: dict[str, object] = {}
    if section.time_dilation is None:
        filled["time_dilation"] = scale.time_dilation
    if section.bytes_scale is None and section.link_mbps is None:
        filled["bytes_scale"] = scale.bytes_scale
    return scenario.model_copy(update={"scale": section.model_copy(update=filled)})


def compare_with(
    emulated: Emulated,
    scenario: Scenario,
    *,
    simulator: Fabric,
    repeat: Callable[..., Rows] | None,
    progress: RunListener,
    command: str,
) -> tuple[Validation, MatchedFlows]:
    """Simulate what was emulated and compare the runs, policy by policy."""
    scenario = _at_scale(emulated.scale, scenario)
    machine_jobs = {job.policy: job for job in resolve(_on(FabricName.MININET, scenario)).jobs}
    jobs = {job.policy: job for job in resolve(_on(FabricName.SIM, scenario)).jobs}
    check_same_work(emulated, machine_jobs)
    links = link_overheads(emulated.scale)
    results: list[PolicyResult] = []
    flows: MatchedFlows = {}
    for policy, job in jobs.items():
        real = run_times(emulated.rows[policy].requests, emulated.rows[policy].flows)

        def simulate(job: Job, policy: str = policy) -> RunTimes:
            record = run_job(simulator, job, partial(progress, f"{policy}, simulated"))
            return run_times(record.requests, record.flows)

        free, free_times = _simulations(job, links, real, simulate)
        flows[policy] = {"own batches": matched_flows(real, free_times)}
        replayed, again, reason = None, None, None
        try:
            plans = plans_of(machine_jobs[policy], emulated.rows[policy].requests) if job.requests else ()
        except NotReplayable as error:
            reason, plans = str(error), ()
        if plans:
            replayed, replayed_times = _simulations(_with_plans(job, plans), links, real, simulate)
            flows[policy]["same batches"] = matched_flows(real, replayed_times)
        if repeat is not None and reason is None:
            once_more = _with_plans(machine_jobs[policy], plans)
            rows = repeat(once_more, partial(progress, f"{policy}, once more"))
            again_times = run_times(rows.requests, rows.flows)
            again = compare(real, again_times)
            flows[policy]["emulated once more"] = matched_flows(real, again_times)
        results.append(
            PolicyResult(
                policy=policy,
                faithful=policy not in emulated.unfaithful,
                free=free,
                replayed=replayed,
                not_replayed=reason,
                repeated=again,
            )
        )
    rankings = _rankings(results)
    with_overheads = any(result.free.overheads is not None for result in results)
    return Validation(
        scenario=scenario.name,
        seed=scenario.seed,
        scale=emulated.scale,
        command=command,
        links=links,
        overheads=next(iter(jobs.values())).simulation.overheads if with_overheads else None,
        goals=goals_of(
            free={result.policy: result.free.judged for result in results},
            # Without batches the flows are the same anyway.
            replayed={r.policy: (r.replayed or r.free).judged for r in results if r.not_replayed is None},
            rankings=rankings,
            unfaithful=[result.policy for result in results if not result.faithful],
            mean_error=MEAN_ERROR,
            flow_share=FLOW_SHARE,
        ),
        rankings=rankings,
        policies=tuple(results),
    ), flows


def _simulations(
    job: Job, links: Overheads, real: RunTimes, simulate: Callable[[Job], RunTimes]
) -> tuple[Simulations, RunTimes]:
    """Simulate `job`; return its comparisons with `real`, and the times of the simulation to judge."""
    ideal = compare(real, simulate(_with_overheads(job, Overheads())))
    configured = simulate(_with_overheads(job, links))
    if job.simulation.overheads == Overheads():
        return Simulations(ideal=ideal, links=compare(real, configured), overheads=None), configured
    overheads = simulate(job)
    return (
        Simulations(ideal=ideal, links=compare(real, configured), overheads=compare(real, overheads)),
        overheads,
    )


def _with_overheads(job: Job, overheads: Overheads) -> Job:
    simulation = msgspec.structs.replace(job.simulation, overheads=overheads)
    return msgspec.structs.replace(job, simulation=simulation)


def _with_plans(job: Job, plans: tuple[BatchPlan, ...]) -> Job:
    return msgspec.structs.replace(job, plans=plans)


def _on(fabric: FabricName, scenario: Scenario) -> Scenario:
    return scenario.model_copy(update={"fabric": fabric.value})


def _with_calibration(scenario: Scenario, path: Path) -> Scenario:
    simulation = scenario.simulation.model_copy(update={"calibration": str(path.resolve())})
    return scenario.model_copy(update={"simulation": simulation})


def _calibrated(scenario: Scenario, emulator: Fabric, progress: RunListener) -> Calibration:
    """Calibrate at the wire rate of the scenario's fastest NIC, for its largest process group."""
    job = resolve(_on(FabricName.MININET, scenario)).jobs[0]
    servers = set(job.topology.servers)
    nic_bps = max(job.scale.wire_bps(link.bps) for link in job.topology.links if link.src in servers)
    largest = max((len(members) for members in job.placement.groups.values()), default=0)
    return calibrate(
        emulator,
        link_mbps=float(f"{nic_bps / 1e6:.6g}"),
        members=members_for(largest),
        progress=lambda name, state: progress(f"calibration, {name}", state),
    )


def _rankings(results: Sequence[PolicyResult]) -> tuple[Ranking, ...]:
    """Rank by SLO attainment and by mean TTFT; a single policy is not ranked."""
    if len(results) < 2:
        return ()
    judged = {result.policy: result.free.judged for result in results}
    requests = max(1, max(one.requests for one in judged.values()))
    rankings = (
        rank(
            RankedBy.SLO_ATTAINMENT.value,
            {policy: one.slo_attainment for policy, one in judged.items()},
            smaller_is_better=False,
            tie=SLO_TIE_REQUESTS / requests + 1e-9,
            relative=False,
        ),
        rank(
            RankedBy.MEAN_TTFT.value,
            {policy: one.ttft_mean_s for policy, one in judged.items()},
            smaller_is_better=True,
            tie=TTFT_TIE,
            relative=True,
        ),
    )
    return tuple(ranking for ranking in rankings if ranking.emulated)
