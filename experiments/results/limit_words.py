"""What limits the runs of a summary, in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from experiments.results.limits import Limit
from experiments.results.readable_numbers import NOTHING

TTFT_PARTS: Final = {
    "queue_s": "queue",
    "compute_s": "compute",
    "collective_s": "S2",
    "s1_wait_s": "exposed S1",
    "p2d_tail_s": "S3 tail",
    "decode_s": "decode step",
    "other_s": "other",
}
"""The parts of the TTFT with their names, in the order in which they are shown."""

_OF_TRANSFERS: Final = ("collective_s", "s1_wait_s", "p2d_tail_s")
_WORDS: Final = {
    Limit.COMPUTE: "compute-limited",
    Limit.NETWORK: "network-limited",
    Limit.NONE: "not saturated",
}


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.0f}%"


def limit_name(limits: Mapping[str, Any]) -> str:
    return _WORDS[Limit(limits["limit"])]


def limit_words(limits: Mapping[str, Any]) -> str:
    """Return the limit with its evidence: "compute-limited: GPUs 83% busy (71% computing), busiest port
    h1->s1 21%"."""
    busy, computing = (percent(limits[name]["mean"]) for name in ("occupied", "computing"))
    gpus = f"GPUs {busy} busy ({computing} computing)"
    said = f"{limit_name(limits)}: {gpus}"
    if limits["port"] is None:
        return said
    return f"{said}, busiest port {limits['port']} {percent(limits['port_busy']['mean'])}"


def peak_words(limits: Mapping[str, Any]) -> str:
    """Return the same of the busiest second: "in the busiest second 97% and 48%"."""
    port = "" if limits["port"] is None else f" and {percent(limits['port_busy']['busiest'])}"
    return f"in the busiest second {percent(limits['occupied']['busiest'])}{port}"


def parts_of_ttft(limits: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the parts of the mean TTFT by name, as shares of it. Empty without a first token."""
    parts = limits["ttft"]
    whole = sum(parts.values()) if parts else 0.0
    return [(name, parts[key] / whole) for key, name in TTFT_PARTS.items()] if whole > 0 else []


def parts_words(limits: Mapping[str, Any]) -> str:
    """Return the parts of the TTFT of at least half a per cent: "queue 41%, compute 30%, ..."."""
    return ", ".join(f"{name} {percent(part)}" for name, part in parts_of_ttft(limits) if part >= 0.005)


def limit_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield two lines for each run with limits: what limits it, and the parts of its TTFT."""
    for run in summary["runs"]:
        limits = run.get("limits")
        if limits is None:
            continue
        yield f"{run['policy']}: {limit_words(limits)}; {peak_words(limits)}"
        if parts_of_ttft(limits):
            yield f"  of the mean TTFT: {parts_words(limits)}"


def limits_in_one(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what limits the runs that have limits: one line for all of them if it is the same, with ranges,
    else a line for each."""
    told = [(str(run["policy"]), run["limits"]) for run in runs if run.get("limits")]
    if len({limits["limit"] for _, limits in told}) != 1 or len(told) == 1:
        return [f"{policy} is {limit_words(limits)}" for policy, limits in told]
    found = [limits for _, limits in told]
    busy, computing = (
        _range([limits[name]["mean"] for limits in found]) for name in ("occupied", "computing")
    )
    ports = [limits["port_busy"]["mean"] for limits in found if limits["port"] is not None]
    port = f", the busiest port {_range(ports)}" if ports else ""
    name = limit_name(found[0])
    subject = "None is saturated" if name == _WORDS[Limit.NONE] else f"All are {name}"
    return [f"{subject}: GPUs {busy} busy ({computing} computing){port}"]


def _range(shares: Sequence[float]) -> str:
    """Return "74% to 76%", or "75%" if both ends are the same."""
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low} to {high}"


def alike_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """For each group of policies that hardly differ: say so, why, and what to change."""
    by_policy = {run["policy"]: run for run in summary["runs"]}
    for group in summary.get("alike", ()):
        run = by_policy[group["policies"][0]]
        yield (
            f"{_listed(group['policies'])} hardly differ: the TTFT of a request changes by"
            f" {100 * group['mean']:.2g}% of the mean on average, and by {100 * group['most']:.2g}% at most."
            f" {_why(run.get('limits'))}"
        )


def _why(limits: Mapping[str, Any] | None) -> str:
    port = limits["port"] if limits is not None else None
    inside = port is not None and any(end.endswith(".nvs") for end in port.split("->"))
    rate = "topology.nvlink_gbps or topology.nic_gbps" if inside else "topology.nic_gbps"
    more = (
        f"For more load on the network, lower {rate}, raise workload.load (or lower the"
        " workload.time_scale of a trace), or let prompts be longer or reuse more KV."
    )
    if limits is None or limits["port"] is None or not limits["ttft"]:
        return more
    if Limit(limits["limit"]) is Limit.NETWORK:
        more = "The network has load enough: --ceiling says how much any order of its flows could gain."
    parts = limits["ttft"]
    served = sum(parts.values()) - parts["queue_s"]
    transfers = sum(parts[key] for key in _OF_TRANSFERS)
    share = transfers / served if served > 0 else 0.0
    why = (
        f"Transfers are {percent(share)} of the TTFT after the queue, and the busiest port,"
        f" {limits['port']}, is {percent(limits['port_busy']['mean'])} busy"
        f" ({percent(limits['port_busy']['busiest'])} in its busiest second)."
    )
    return f"{why} {more}"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
