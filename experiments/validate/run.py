"""`mfs validate`: the same scenario and seed on the emulated and on the simulated fabric, side by side.

Twice: where each fabric forms its own batches, and where the simulator runs the batches the emulated run
formed (`testbed.serving.replay`). Only the second has flows that are the same on both.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from experiments.atomic_file import write_text
from experiments.calibrate.links import calibrate, members_for
from experiments.errors import UserError
from experiments.json_text import json_text
from experiments.resolve.calibration import Calibration, write_calibration
from experiments.resolve.jobs import resolve
from experiments.results.parquet import read_tables
from experiments.run.directory import results_directory
from experiments.run.run import RunListener, run_job, run_scenario
from experiments.scenario.reading import load_scenario
from experiments.scenario.scenario import Scenario
from experiments.validate.compare import (
    Comparison,
    Goal,
    Matched,
    Pair,
    Ranking,
    RunTimes,
    compare,
    goals_of,
    matched_flows,
    rank,
    run_times,
)
from testbed.emulation.nominal import link_overheads
from testbed.fabric import Fabric
from testbed.job import Job, Overheads, Scale
from testbed.record import FlowRow, RequestRow
from testbed.serving.replay import NotReplayable, plans_of
from workers.plan import BatchPlan

MEAN_ERROR = 0.10
"""Most that mean TTFT and mean collective completion time may be off."""

FLOW_SHARE = 0.90
"""Share of the flows that has to be right."""

TTFT_TIE = 0.03
SLO_TIE_REQUESTS = 2
"""What two emulated runs of one seed were seen to differ by: policies that are closer are not ranked."""

CALIBRATION_FILE = "calibration.json"
EMULATED = "emulated"


class Rows(Protocol):
    """A `RunRecord`, or the tables of one."""

    @property
    def requests(self) -> Sequence[RequestRow]: ...

    @property
    def flows(self) -> Iterable[FlowRow]: ...


class Emulated(msgspec.Struct, frozen=True, kw_only=True):
    """The emulated runs that a directory holds: what was run, at which scale, rows by policy, and the
    policies whose run is not faithful."""

    scenario: Scenario
    scale: Scale
    rows: dict[str, Any]
    unfaithful: tuple[str, ...]


class Simulations(msgspec.Struct, frozen=True, kw_only=True):
    """What one emulated run is compared with: simulations with ideal links, with links as the emulated
    fabric configures them, and with the overheads of the machine; None where none were asked for."""

    ideal: Comparison
    links: Comparison
    overheads: Comparison | None

    @property
    def judged(self) -> Comparison:
        return self.links if self.overheads is None else self.overheads


class PolicyResult(msgspec.Struct, frozen=True, kw_only=True):
    """One policy. `free` forms its own batches, `replayed` runs the emulated ones if there are any,
    `repeated` is another emulated run of these. `not_replayed` says why emulated batches could not be made
    again."""

    policy: str
    faithful: bool
    free: Simulations
    replayed: Simulations | None
    not_replayed: str | None
    repeated: Comparison | None


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """What `validate.json` holds. `links` and `overheads` are in model units; these None if none were asked
    for."""

    scenario: str
    seed: int
    scale: Scale
    command: str
    links: Overheads
    overheads: Overheads | None
    goals: tuple[Goal, ...]
    rankings: tuple[Ranking, ...]
    policies: tuple[PolicyResult, ...]

    @property
    def met(self) -> bool:
        return all(goal.met for goal in self.goals)


Flows = dict[str, dict[str, Matched]]
"""The flows both runs have, by policy and by what the emulated run was compared with: for figures."""


def read_emulated(path: Path) -> Emulated:
    """Read the runs in `path`, which `mfs run` or `mfs validate` wrote.

    Raises `UserError` for a directory that is none, or not of the emulated fabric.
    """
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        scenario = load_scenario(str(path / "scenario.yaml"))
        if summary["fabric"] != "mininet":
            raise UserError(f"--emulated {path}: this is a run of the fabric {summary['fabric']!r}")
        runs = summary["runs"]
        return Emulated(
            scenario=scenario,
            scale=msgspec.convert(summary["scale"], Scale),
            rows={run["policy"]: read_tables(path, run["policy"]) for run in runs},
            unfaithful=tuple(run["policy"] for run in runs if not run["fidelity"]["faithful"]),
        )
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(f"--emulated {path}: not the directory of a finished run: {error}") from error


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
    """Run, or read from `emulated`, the emulated runs of `scenario`; simulate; compare; write.

    Simulates with ideal links, with links as the emulated fabric configures them, and with the scenario's
    overheads if it has any (`simulation.calibration`, `simulation.overheads`). `calibrates`: measure them
    first. `repeats`: emulate each policy once more, with the batches of its first run. Returns the directory
    (`validate.json`, `report.html`, the emulated run unless it was read, the calibration if it was made) and
    what is in `validate.json`.
    """
    with results_directory(out, f"validate-{scenario.name}") as directory:
        if calibrates:
            calibration = _calibrated(scenario, emulator, progress)
            write_calibration(directory / CALIBRATION_FILE, calibration)
            scenario = _with_calibration(scenario, directory / CALIBRATION_FILE)
        if emulated is None:
            on_machine = scenario.model_copy(update={"fabric": "mininet"})
            emulated = directory / EMULATED
            run_scenario(on_machine, fabric=emulator, out=emulated, progress=progress, command=command)
        runs = read_emulated(emulated)
        result, flows = compare_with(
            runs,
            scenario,
            simulator=simulator,
            repeat=partial(run_job, emulator) if repeats else None,
            progress=progress,
            command=command,
        )
        write_text(directory / "validate.json", _json(result))
        from experiments.validate.page import render_validation

        write_text(directory / "report.html", render_validation(result, flows))
    return directory, result


def compare_with(
    emulated: Emulated,
    scenario: Scenario,
    *,
    simulator: Fabric,
    repeat: Callable[..., Rows] | None,
    progress: RunListener,
    command: str,
) -> tuple[Validation, Flows]:
    """Simulate what was emulated and put the runs side by side, policy by policy."""
    machine_jobs = {
        job.policy: job for job in resolve(scenario.model_copy(update={"fabric": "mininet"})).jobs
    }
    jobs = {job.policy: job for job in resolve(scenario.model_copy(update={"fabric": "sim"})).jobs}
    _check_same_work(emulated, machine_jobs)
    links = link_overheads(emulated.scale)
    results: list[PolicyResult] = []
    flows: Flows = {}
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
    """The simulations of `job`, compared, and the times of the one that is judged."""
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


def _with_calibration(scenario: Scenario, path: Path) -> Scenario:
    simulation = scenario.simulation.model_copy(update={"calibration": str(path.resolve())})
    return scenario.model_copy(update={"simulation": simulation})


def _calibrated(scenario: Scenario, emulator: Fabric, progress: RunListener) -> Calibration:
    """Measure at the rate that the scenario's NICs have on the wire, for its largest process group."""
    job = resolve(scenario.model_copy(update={"fabric": "mininet"})).jobs[0]
    servers = set(job.topology.servers)
    nic_bps = max(job.scale.wire_bps(link.bps) for link in job.topology.links if link.src in servers)
    largest = max((len(members) for members in job.placement.groups.values()), default=0)
    return calibrate(
        emulator,
        link_mbps=float(f"{nic_bps / 1e6:.6g}"),
        members=members_for(largest),
        progress=lambda name, state: progress(f"calibration, {name}", state),
    )


def _check_same_work(emulated: Emulated, jobs: Mapping[str, Job]) -> None:
    """Raises `UserError` where the runs were of other work than `jobs`, or another version made it."""
    for policy, job in jobs.items():
        if policy not in emulated.rows:
            raise UserError(f"--policy {policy}: was not emulated (there are {', '.join(emulated.rows)})")
        if job.scale != emulated.scale:
            then, now = emulated.scale, job.scale
            raise UserError(
                f"--emulated: the run was at time x{then.time_dilation:g}, bytes x{then.bytes_scale:g}; its"
                f" scenario now comes to x{now.time_dilation:g}, x{now.bytes_scale:g}: emulate it again"
            )
        rows = emulated.rows[policy]
        wanted = sorted((request.id, request.arrival_ns, request.prompt_tokens) for request in job.requests)
        had_requests = sorted((row.request, row.arrival_ns, row.prompt_tokens) for row in rows.requests)
        if wanted != had_requests:
            raise UserError("--emulated: its scenario now makes other requests: emulate it again")
        if job.flows and {flow.transfer.id for flow in job.flows} != {flow.id for flow in rows.flows}:
            raise UserError("--emulated: its scenario now has other flows: emulate it again")


def _rankings(results: Sequence[PolicyResult]) -> tuple[Ranking, ...]:
    """By SLO attainment and by mean TTFT; none of a single policy."""
    if len(results) < 2:
        return ()
    judged = {result.policy: result.free.judged for result in results}
    requests = max(1, max(one.requests for one in judged.values()))

    def ranked(measure: str, values: dict[str, Pair], smaller: bool, tie: float) -> Ranking:
        return rank(measure, values, smaller_is_better=smaller, tie=tie, relative=smaller)

    rankings = (
        ranked(
            "SLO attainment",
            {policy: one.slo_attainment for policy, one in judged.items()},
            False,
            SLO_TIE_REQUESTS / requests + 1e-9,
        ),
        ranked("mean TTFT", {policy: one.ttft_mean_s for policy, one in judged.items()}, True, TTFT_TIE),
    )
    return tuple(ranking for ranking in rankings if ranking.emulated)


def _json(result: Validation) -> str:
    """With the error beside each pair of numbers: who reads the file should not have to work it out."""

    def with_errors(value: Any) -> Any:
        if isinstance(value, Pair):
            return {"emulated": value.emulated, "simulated": value.simulated, "error": value.error}
        if isinstance(value, msgspec.Struct):
            return {name: with_errors(getattr(value, name)) for name in value.__struct_fields__}
        if isinstance(value, tuple):
            return [with_errors(item) for item in value]
        return value

    return json_text({"met": result.met, **with_errors(result)})
