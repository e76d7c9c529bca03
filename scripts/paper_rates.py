"""Tables of the rates that a search of `mfs capacity` found (`scripts/paper_tables.py`)."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from paper_words import POLICY, Size, heading, line, wrapped

from experiments.capacity.answer import capacities
from experiments.capacity.question import RATE
from experiments.results.paired import REPLICATES
from experiments.results.readable_numbers import NOTHING


class AskedRates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a comment asks of a search of `mfs capacity`.

    `search` is its directory, and `against` the policy whose rate others are compared with: None for the
    first one of the search.
    """

    search: str
    against: str | None = None
    size: Size = Size.SMALL


def set_against(content: dict[str, Any], against: str) -> dict[str, Any]:
    """Return the content of `capacity.json` with `against` first, and ratios of rates to its rate.

    They are worked out from the attainments of the cells, as the search does. Raises `ValueError` if the
    search has no such policy.
    """
    attained: dict[str, dict[Any, dict[float, float]]] = {}
    for cell in content["cells"]:
        replicate = next((cell[key] for key in REPLICATES if key in cell), None)
        attained.setdefault(cell[POLICY], {}).setdefault(replicate, {})[cell[RATE]] = cell["slo_attainment"]
    if against not in attained:
        raise ValueError(f"the search has no policy {against!r}")
    found = capacities({against: attained[against], **attained}, content["attain"])
    told = {one["policy"]: one for one in content["capacities"]}
    compared = [
        told[one.policy]
        | {
            "ratio": one.ratio and one.ratio.value,
            "ratio_low": one.ratio and one.ratio.low,
            "ratio_high": one.ratio and one.ratio.high,
        }
        for one in found
    ]
    return content | {"against": against, "capacities": compared}


def rates(content: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table of rates. `content` is that of `capacity.json`.

    Raises `ValueError` if a cell of the search failed.
    """
    if content["failed"]:
        raise ValueError(f"cells of the search failed: {[one['cell'] for one in content['failed']]}")
    kept = f"{100 * content['attain']:.0f} %"
    yield from heading(["policy", f"requests/s at {kept}", "load", f"against `{content['against']}`"])
    for one in content["capacities"]:
        load = NOTHING if one["load"] is None else f"{one['load']:.2f}"
        yield line([f"`{one['policy']}`", _rate(one), load, _ratio(one)])
    yield ""
    counts = {one["replicates"] for one in content["capacities"]}
    yield from wrapped(
        f"Over {max(counts)} replicates, with 95 % intervals; ratios in bold where these leave out 1. A load"
        f" is a share of the estimated capacity, {content['estimated_rps']:.3g} requests/s."
    )


def _rate(one: Mapping[str, Any]) -> str:
    """The rate of a policy with its interval, or at which end of the search it is."""
    if one["rate_rps"] is None:
        at = {"never": ("below", "fails_rps"), "always": ("above", "holds_rps")}.get(one["outcome"])
        return NOTHING if at is None else f"{at[0]} {one[at[1]]:.3g}"
    interval = "" if one["low"] is None else f" [{one['low']:.3g}, {one['high']:.3g}]"
    return f"{one['rate_rps']:.3g}{interval}"


def _ratio(one: Mapping[str, Any]) -> str:
    if one["ratio"] is None:
        return ""
    times = f"{one['ratio']:.2f} times"
    low, high = one["ratio_low"], one["ratio_high"]
    if low is None:
        return times
    shown = low > 1 or high < 1
    return f"{f'**{times}**' if shown else times} [{low:.2f}, {high:.2f}]"
