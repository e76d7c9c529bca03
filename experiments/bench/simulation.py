"""`mfs bench sim`: the speed of the simulated fabric, and how run times grow.

Every run has a process of its own, so that its peak memory can be told apart. docs/measured/benchmarks.md
says what the cases and columns mean.
"""

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from controller.units import NS_PER_S
from experiments.bench.own_process import in_own_process
from experiments.bench.simulation_cases import CASES, GROWTH, Case
from experiments.resolve.jobs import resolve
from experiments.results.limits import Resources
from experiments.results.readable_numbers import NOTHING
from experiments.results.unused import unused_parts
from experiments.results.writing import write_run
from experiments.run.placement_text import placement_text
from experiments.scenario.reading import Override, load_scenario, override
from testbed.job import Job
from testbed.record import RunRecord
from testbed.simulation.run import SimulatedRun
from workers.spans import SpanKind

DEFAULT_POLICIES: Final = ("fair", "mfs")
COLUMNS: Final = 150
"""Width of the table of results on a terminal, in characters."""
KIB: Final = 1024
MIB: Final = 1024**2


class MeasuredRun(msgspec.Struct, frozen=True, kw_only=True):
    """The measurements of one run, not counting the writing of results.

    Tasks are messages between ranks and compute steps of ranks. Events are what the simulator takes from
    its agenda, and ends of messages. `moving` is how many messages were in flight at once, on average over
    simulated time; `shared_anew` is the mean number of messages whose rates a change recomputed.
    `cpu_s` is processor time, `wall_s` wall time; `peak_bytes` is the peak memory of the whole process.
    `rest_s` is the wall time of writing the results and the report afterwards, in as many processes as there
    are cores, as `mfs run` does, and `rest_cpu_s` the processor time of all of them.
    """

    case: str
    policy: str
    wall_s: float
    cpu_s: float
    simulated_s: float
    tasks: int
    events: int
    flows: int
    requests: int
    moving: float
    shared_anew: float
    peak_bytes: int
    faithful: bool
    rest_s: float | None = None
    rest_cpu_s: float | None = None

    @property
    def events_per_s(self) -> float:
        return self.events / self.wall_s

    @property
    def flows_per_s(self) -> float:
        return self.flows / self.wall_s


def measure(
    cases: Sequence[Case],
    policies: Sequence[str],
    *,
    seed: int,
    settings: Sequence[str] = (),
    on_start: Callable[[str, str], None] = lambda case, policy: None,
) -> Iterator[MeasuredRun]:
    """Run every case under every policy, one after the other, each in a process of its own.

    Raises `RunFailed` if a process dies.
    """
    for case in cases:
        for policy in policies:
            on_start(case.name, policy)
            what = f"{case.name} under {policy}"
            yield in_own_process(what, run_case, case, policy, seed, tuple(settings))


def run_case(case: Case, policy: str, seed: int, settings: tuple[str, ...] = ()) -> MeasuredRun:
    """Run `case` in this process. An untimed small run loads the compiled functions first."""
    texts = ("fabric=sim", f"seed={seed}", *case.settings, *settings)
    overrides = [override(text) for text in texts]
    overrides.append(Override("policies", json.dumps([policy]), f"--policy {policy}"))
    scenario = load_scenario("quickstart", overrides)
    few = load_scenario("quickstart", [override("fabric=sim"), override("workload.requests=2")])
    SimulatedRun(resolve(few).jobs[0], lambda _: None).run()
    begun, begun_cpu = time.perf_counter(), time.process_time()
    job = resolve(scenario).jobs[0]
    record = SimulatedRun(job, lambda _: None).run()
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - begun_cpu
    computed = sum(span.kind == SpanKind.COMPUTE for span in record.spans)
    facts = {name: float(value) for name, value in record.facts.items()}
    peak_bytes = _peak_bytes()
    rest_s, rest_cpu_s = _rest(record, job)
    return MeasuredRun(
        case=case.name,
        policy=policy,
        wall_s=wall_s,
        cpu_s=cpu_s,
        simulated_s=record.duration_ns / NS_PER_S,
        tasks=int(facts["messages"]) + computed,
        events=int(facts["events"]),
        flows=len(record.flows),
        requests=len(record.requests),
        moving=facts["moving"],
        shared_anew=facts["worked_out"] / max(1.0, facts["settlings"]),
        peak_bytes=peak_bytes,
        faithful=record.fidelity.faithful,
        rest_s=rest_s,
        rest_cpu_s=rest_cpu_s,
    )


def _rest(record: RunRecord, job: Job) -> tuple[float, float]:
    """Write the results of a run and their report. Returns the wall and the processor time that it took."""
    from experiments.report.run_report import write_report  # loads matplotlib, which is not what is measured

    cores = len(os.sched_getaffinity(0))
    with TemporaryDirectory() as name:
        out = Path(name)
        begun, begun_cpu = time.perf_counter(), _cpu_s()
        write_run(
            out,
            scenario=job.scenario,
            fabric=record.fabric,
            seed=job.seed,
            scale=job.scale,
            resolved_yaml="",
            notes=[],
            records=[record],
            placement_text=placement_text(job.placement),
            resources=Resources.of(job),
            unused=unused_parts([record], job.placement, job.topology),
            jobs=cores,
        )
        write_report([out], out / "report.html", jobs=cores)
        return time.perf_counter() - begun, _cpu_s() - begun_cpu


def _cpu_s() -> float:
    """The processor time of this process and of those that it has waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def render(measured: Sequence[MeasuredRun]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = (
        "case",
        "policy",
        "wall",
        "CPU",
        "rest",
        "rest CPU",
        "simulated",
        "tasks",
        "events/s",
        "flows/s",
        "tasks/s",
        "moving",
        "shared anew",
        "peak",
        "faithful",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("case", "policy") else "right")
    for one in measured:
        table.add_row(
            one.case,
            one.policy,
            f"{one.wall_s:.1f} s",
            f"{one.cpu_s:.1f} s",
            NOTHING if one.rest_s is None else f"{one.rest_s:.1f} s",
            NOTHING if one.rest_cpu_s is None else f"{one.rest_cpu_s:.1f} s",
            f"{one.simulated_s:.2f} s",
            f"{one.tasks:,}",
            f"{one.events_per_s:,.0f}",
            f"{one.flows_per_s:,.0f}",
            f"{one.tasks / one.wall_s:,.0f}",
            f"{one.moving:.0f}",
            f"{one.shared_anew:.1f}",
            f"{one.peak_bytes / MIB:,.0f} MiB",
            "yes" if one.faithful else "no",
        )
    about = {case.name: case.about for case in (*CASES, *GROWTH)}
    lines = [
        f"{name}: {about[name]}" for name in dict.fromkeys(one.case for one in measured) if name in about
    ]
    return Group(table, Text("\n".join(lines)))


def as_json(measured: Sequence[MeasuredRun], *, seed: int, complete: bool) -> dict[str, Any]:
    return {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "seed": seed,
        "complete": complete,
        "runs": [
            msgspec.to_builtins(one) | {"events_per_s": one.events_per_s, "flows_per_s": one.flows_per_s}
            for one in measured
        ],
    }


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIB
