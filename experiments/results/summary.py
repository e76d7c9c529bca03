"""The summary of a run: plain JSON data without NaN, for `summary.json` and `--json`."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from controller.flow import SERVING_STAGES, Stage
from controller.units import NS_PER_S
from experiments.json_text import finite
from experiments.results.cure import cure_of, settings_of
from experiments.results.faults import fault_entries
from experiments.results.folder_names import folder_names
from experiments.results.gap import Ceiling, gaps
from experiments.results.limits import Resources, alike
from experiments.results.machine import Machine
from experiments.results.measures import BackgroundMeasures, Measures, measure
from experiments.results.real_layers import real_layers
from experiments.results.requests import arrival_rps, counted, fates, slo_attainment
from experiments.results.statistics import FloatArray, Numbers, mean, percentile
from testbed.job import Scale
from testbed.record import FASTER_THAN_LINE, CacheRow, FlowRow, RequestRow, RequestStatus, RunRecord

Summary = dict[str, Any]


def _seconds(values_ns: npt.ArrayLike) -> FloatArray:
    seconds: FloatArray = np.asarray(values_ns, dtype=np.float64) / NS_PER_S
    return seconds


def _statistics(values: Numbers, *names: str) -> dict[str, float | None]:
    """Return the statistics in `names` ("mean", "p50", "p99" ...), each `None` without values."""
    return {
        name: mean(values) if name == "mean" else percentile(values, float(name.removeprefix("p")))
        for name in names
    }


def _speed_notes(records: Sequence[RunRecord]) -> list[str]:
    """Say where flows were faster than their lines, if at least one in a hundred was."""
    shares = [(float(record.facts.get(FASTER_THAN_LINE, 0.0)), record.policy) for record in records]
    told = [f"{share:.1%} of them with {policy}" for share, policy in shares if share >= 0.01]
    if not told:
        return []
    return [
        f"an idle port passes two packets at once, so short S1 and S3 flows beat the line: {', '.join(told)}"
    ]


def _micro_flow(flow: FlowRow) -> dict[str, Any]:
    return {
        "id": flow.id,
        "stage": flow.stage.value,
        "start_s": flow.submit_ns / NS_PER_S,
        "finish_s": flow.finish_ns / NS_PER_S,
        "deadline_s": None if flow.deadline_ns is None else flow.deadline_ns / NS_PER_S,
        "lateness_s": None
        if flow.deadline_ns is None
        else max(0, flow.finish_ns - flow.deadline_ns) / NS_PER_S,
        "level_first": flow.level_first.name,
        "level_last": flow.level_last.name,
        "promotions": flow.promotions,
    }


def _cache(rows: Sequence[CacheRow]) -> dict[str, Any]:
    """Return the counts of the prefix caches, by unit and in total; empty if nothing is known of them."""
    if not rows:
        return {}
    return {
        "units": {row.unit: row.counts() for row in rows},
        "total": sum(rows, start=CacheRow(unit="")).counts(),
    }


def _classes(rows: Sequence[RequestRow]) -> dict[str, Any]:
    """Return the measures of requests by SLO class; empty if all are of one class."""
    by_class: dict[str, list[RequestRow]] = {}
    for row in rows:
        by_class.setdefault(row.slo_class, []).append(row)
    return {name: _of_requests(by_class[name]) for name in sorted(by_class)} if len(by_class) > 1 else {}


def _of_requests(rows: Sequence[RequestRow]) -> dict[str, Any]:
    ttft_s = _seconds([row.ttft_ns for row in rows if row.ttft_ns is not None])
    return {
        "requests": len(rows),
        "completed": sum(row.status == RequestStatus.COMPLETED for row in rows),
        "slo_attainment": slo_attainment(rows),
        "slo_mean_s": mean(_seconds([row.slo_ns for row in rows])),
        "ttft_s": _statistics(ttft_s, "mean", "p50", "p90", "p99"),
    }


def summarise_run(record: RunRecord, measured: Measures) -> dict[str, Any]:
    """Return an entry of `runs[]`. `measured` are the measures of the record.

    A micro workload has no requests and lists its `flows` instead. With coflows, it gives only their
    number, because a trace can have hundreds of thousands of flows.
    """
    flows = measured.flows
    requests = counted(record.requests)
    coflow_s = _seconds(list(flows.coflow_ns.values()))
    # Background transfers beside requests have an entry of their own.
    shown = [stage for stage in Stage if stage in SERVING_STAGES or len(flows.stage_ns[stage])]
    run: dict[str, Any] = {
        "policy": record.policy,
        "order": record.order.value,
        **_of_requests(requests),
        "arrival_rps": arrival_rps(requests),
        "limits": msgspec.to_builtins(measured.limits),
        "counts": fates(record.requests) | {"warmup": len(record.requests) - len(requests)},
        "classes": _classes(requests),
        "tpot_s": _statistics(
            _seconds([row.tpot_ns for row in requests if row.tpot_ns is not None]), "mean", "p50", "p99"
        ),
        "cct_s": _statistics(_seconds(flows.collective_ns), "mean", "p99"),
        "coflows": len(coflow_s),
        "coflow_completion_s": _statistics(coflow_s, "mean", "p50", "p90", "p99"),
        "earliness_s": _statistics(_seconds(flows.earliness_ns), "mean"),
        "lateness_s": _statistics(_seconds(flows.lateness_ns), "mean"),
        "exposed_s1_s": _statistics(_seconds(measured.exposed_s1.wait_ns), "mean", "p99"),
        "stage_completion_s": {
            stage.value: _statistics(_seconds(flows.stage_ns[stage]), "mean", "p50", "p99") for stage in shown
        },
        "flows_by_stage": {stage.value: len(flows.stage_ns[stage]) for stage in shown},
        "promotions": flows.promotions,
        "permit_latency_ms": _statistics(record.permit_latency_ms, "p50", "p99"),
        "real_layers": real_layers(record.requests),
        "verified": {"checked": flows.checked, "failed": flows.failed},
        "cache": _cache(record.caches),
        "faults": msgspec.to_builtins(fault_entries(record, requests)),
        "fidelity": msgspec.to_builtins(record.fidelity),
        "duration_s": record.duration_ns / NS_PER_S,
        "facts": dict(record.facts),
    }
    if flows.background is not None:
        run["background"] = _background(flows.background)
    if not record.requests and record.flows and not flows.coflow_ns:
        run["flows"] = [_micro_flow(flow) for flow in record.flows]
    return run


def _background(measured: BackgroundMeasures) -> dict[str, Any]:
    return {
        "transfers": measured.transfers,
        "bytes": measured.size_bytes,
        "bps": measured.bps,
        "took_s": _statistics(_seconds(measured.took_ns), "mean", "p50", "p99"),
    }


def _faithful_with(records: Sequence[RunRecord], scale: Scale) -> list[str]:
    """The settings with which all runs would have been faithful. Empty if they were, or if none would do."""
    checks = [check for record in records for check in record.fidelity.checks]
    real = any(real_layers(record.requests) for record in records)
    cure = cure_of(checks, scale, real_bytes=real)
    return [] if cure is None else settings_of(cure)


def summarise(
    *,
    scenario: str,
    fabric: str,
    seed: int,
    scale: Scale,
    records: Sequence[RunRecord],
    measured: Sequence[Measures] | None = None,
    notes: Sequence[str] = (),
    placement_text: Sequence[str] = (),
    resources: Resources | None = None,
    unfinished: Sequence[str] = (),
    unused: Sequence[str] = (),
    ceiling: Ceiling | None = None,
    scale_notes: Sequence[str] = (),
    machine: Machine | None = None,
) -> Summary:
    """Return the whole summary. `faithful` is true if all runs are, and false without runs.

    The summary of a simulated run does not depend on wall time or the machine, so it is the same each time.
    `measured` are the measures of each record, if they are known already. With `resources`, it says what
    limits each run. `unfinished` are the policies without a record, because the run ended before they
    finished. `ceiling` is what would be reached without a network. `unused` are sentences on
    parts of the cluster that nothing used; they are among the notes, too. `scale_notes` say how `scale` was
    chosen, and are among the notes, too; `machine` is what was measured for that.
    """
    found = [measure(record, resources) for record in records] if measured is None else measured
    runs = [summarise_run(record, one) for record, one in zip(records, found, strict=True)]
    for run, folder in zip(runs, folder_names([r.policy for r in records]), strict=True):
        run["folder"] = folder
    faithful = bool(records) and all(record.fidelity.faithful for record in records)
    summary = {
        "scenario": scenario,
        "fabric": fabric,
        "seed": seed,
        "faithful": faithful,
        "complete": not unfinished,
        "unfinished": list(unfinished),
        "scale": msgspec.to_builtins(scale),
        "notes": [*notes, *unused, *_speed_notes(records)],
        "scale_notes": list(scale_notes),
        "machine": None if machine is None else msgspec.to_builtins(machine),
        "faithful_with": _faithful_with(records, scale),
        "unused": list(unused),
        "alike": msgspec.to_builtins(alike(records)),
        "ceiling": None if ceiling is None else gaps(ceiling, runs),
        "runs": runs,
        "placement": list(placement_text),
        "link_gbps": {port: bps / 1e9 for port, bps in (resources.link_bps if resources else {}).items()},
    }
    result: Summary = finite(summary)
    return result
