"""The section "What was run": scenario, placement, scale, notes and command."""

from collections.abc import Iterable
from typing import Any

import yaml

from experiments.report.markup import Markup, html
from experiments.report.page import folded
from experiments.results.reading import RunDirectory
from testbed.record import FlowOrder

_ORDERS = {
    FlowOrder.LEVELS: "each policy's K levels, strict or by its weights; flows on one level share fairly",
    FlowOrder.HYBRID: "at servers, exact where a policy has an exact order; in switches, its levels",
    FlowOrder.EXACT: "exact where a policy has an exact order, otherwise its levels",
}


def facts(directory: RunDirectory) -> Markup:
    """Return the content of the section: fabric, seed, scale, placement, notes, command, the resolved
    scenario."""
    summary = directory.summary
    scale = summary["scale"]
    rows: list[tuple[str, object]] = [("fabric", summary["fabric"]), ("seed", summary["seed"])]
    if set(scale.values()) != {1.0}:
        text = (
            f"1 model second takes {scale['time_dilation']:g} wall seconds, "
            f"1 model byte is {scale['bytes_scale']:g} bytes on the wire; all results are in model units"
        )
        rows.append(("scale", text))
    orders = {run.get("order", FlowOrder.LEVELS) for run in summary["runs"]}
    rows += [("order of flows", _ORDERS[order]) for order in sorted(orders)]
    rows += list(_scenario_facts(directory.scenario_yaml))
    placement = summary.get("placement", [])
    if placement:
        rows.append(("placement", Markup("<br>".join(html(line) for line in placement))))
    for note in summary["notes"]:
        rows.append(("note", note))
    timing = directory.timing
    if timing.get("command"):
        rows.append(("command", Markup(f"<code>{html(timing['command'])}</code>")))
    if timing.get("started"):
        took = ", ".join(f"{policy} {seconds:.1f} s" for policy, seconds in timing["wall_s"].items())
        rows.append(("started", f"{timing['started']}; on the wall clock {took}"))
    items = "".join(f"<dt>{html(name)}</dt><dd>{html(value)}</dd>" for name, value in rows)
    return Markup(
        f"<dl>{items}</dl>"
        + folded(
            "the whole resolved scenario",
            Markup(f"<div class=scroll><pre>{html(directory.scenario_yaml)}</pre></div>"),
            printed=False,
        )
    )


def _scenario_facts(text: str) -> Iterable[tuple[str, str]]:
    scenario: Any = yaml.safe_load(text)
    if not isinstance(scenario, dict):
        return
    for name in ("topology", "model", "gpu", "units", "workload", "slo", "scheduler"):
        value = scenario.get(name)
        if isinstance(value, dict):
            yield name, ", ".join(_parts(value))
        elif value is not None:
            yield name, str(value)


def _parts(values: dict[Any, Any]) -> Iterable[str]:
    """Yield the keys that are set, with their values. Keys below a key are in brackets."""
    for key, value in values.items():
        if isinstance(value, dict):
            # Of a part that can be switched off, such as `background`, the first key says whether it is on.
            if value and next(iter(value.values())) is not None:
                yield f"{key} ({', '.join(_parts(value))})"
        elif value not in (None, []):
            yield f"{key} {len(value) if isinstance(value, list) else value}"
