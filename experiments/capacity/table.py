"""The tables that `mfs capacity` prints: the capacities, and the curve that was found on the way."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from experiments.results.readable_numbers import NOTHING, share


def capacity_table(content: Mapping[str, Any]) -> Table:
    """Return a row per policy: its rate, with the interval, and as a load and a ratio."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("policy", overflow="fold")
    for heading in ("requests/s", "load", "ratio"):
        table.add_column(heading, justify="right")
    for one in content["capacities"]:
        table.add_row(
            one["policy"],
            _with_interval(one, "rate_rps", "low", "high"),
            NOTHING if one["load"] is None else f"{one['load']:.2f}",
            _with_interval(one, "ratio", "ratio_low", "ratio_high"),
        )
    return table


def curve_table(content: Mapping[str, Any]) -> Table:
    """Return a row per rate: the mean SLO attainment of each policy."""
    policies = list(dict.fromkeys(one["policy"] for one in content["curve"]))
    at: dict[float, dict[str, float]] = {}
    for one in content["curve"]:
        at.setdefault(one["rate_rps"], {})[one["policy"]] = one["slo_attainment"]
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("requests/s", "load", *policies):
        table.add_column(heading, justify="right", overflow="fold")
    for rate, met in sorted(at.items()):
        load = f"{rate / content['estimated_rps']:.2f}"
        table.add_row(f"{rate:g}", load, *(share(met[one]) if one in met else NOTHING for one in policies))
    return table


def _with_interval(one: Mapping[str, Any], mean: str, low: str, high: str) -> str:
    if one[mean] is None:
        return NOTHING
    if one[low] is None:
        return f"{one[mean]:.3g}"
    return f"{one[mean]:.3g} [{one[low]:.3g}, {one[high]:.3g}]"
