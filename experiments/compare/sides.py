"""What is compared: the runs in directories, each under one policy, on the same requests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments.compare.directories import directory_names
from experiments.errors import UserError
from experiments.results.reading import RunDirectory, read_run
from experiments.results.requests import arrival_rps, counted
from testbed.record import RequestRow

SAME_RATE: Final = "workload.load is a share of each cluster's own capacity, workload.rate is the same on all"

SAME_SLO: Final = "slo.multiple is of the unloaded TTFT on each cluster, slo.absolute_s is the same on all"


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A run under one policy. `label` is the policy, with the directory where two sides share a policy."""

    label: str
    path: Path
    policy: str
    faithful: bool
    scale: dict[str, float]
    fabric: str
    requests: tuple[RequestRow, ...]


def sides_of(paths: Sequence[Path]) -> list[Side]:
    """Read the runs in `paths`. Raises `UserError` for a directory or a run that cannot be compared."""
    names = directory_names(paths)
    directories = [read_run(path) for path in paths]
    sides = [side_of(directory, run) for directory in directories for run in directory.summary["runs"]]
    policies = [side.policy for side in sides]
    return [
        msgspec.structs.replace(side, label=f"{side.policy} ({names[side.path]})")
        if policies.count(side.policy) > 1
        else side
        for side in sides
    ]


def side_of(directory: RunDirectory, run: Mapping[str, Any]) -> Side:
    """Return one run of a directory, labelled with its policy. Raises `UserError` if it has no requests."""
    policy = str(run["policy"])
    rows = tuple(counted(directory.tables[policy].requests))
    if not rows:
        raise UserError(f"{directory.path}: {policy} has no requests to compare")
    return Side(
        label=policy,
        path=directory.path,
        policy=policy,
        faithful=bool(run["fidelity"]["faithful"]),
        scale=directory.summary["scale"],
        fabric=directory.summary["fabric"],
        requests=rows,
    )


def objections(sides: Sequence[Side]) -> list[str]:
    """Say why a comparison of `sides` would mislead. Empty if nothing speaks against it."""
    first = sides[0]
    found = [f"{side.label} is not faithful" for side in sides if not side.faithful]
    for side in sides[1:]:
        if side.fabric != first.fabric:
            found.append(f"{first.label} ran on {first.fabric}, {side.label} on {side.fabric}")
        if side.scale != first.scale:
            found.append(f"{first.label} and {side.label} have different scales")
        different = _different_work(first, side)
        if different:
            found.append(different)
    return found


def _different_work(first: Side, other: Side) -> str | None:
    ours = {row.request: row for row in first.requests}
    theirs = {row.request: row for row in other.requests}
    if ours.keys() != theirs.keys():
        return (
            f"{first.label} measures {len(ours)} requests, {other.label} {len(theirs)}; not all are the same"
        )
    pairs = [(row, theirs[number]) for number, row in ours.items()]
    for mine, its in pairs:
        if (mine.prompt_tokens, mine.slo_class) != (its.prompt_tokens, its.slo_class):
            return f"request {mine.request} is another one in {other.label} than in {first.label}"
    found = []
    if any(mine.arrival_ns != its.arrival_ns for mine, its in pairs):
        found.append(_other_arrivals(first, other))
    if any(mine.slo_ns != its.slo_ns for mine, its in pairs):
        found.append(f"their SLOs differ in {first.label} and {other.label}: {SAME_SLO}")
    return "; ".join(found) or None


def _other_arrivals(first: Side, other: Side) -> str:
    rates = [arrival_rps(side.requests) for side in (first, other)]
    if None in rates or f"{rates[0]:.3g}" == f"{rates[1]:.3g}":
        return f"the requests arrive at other moments in {other.label} than in {first.label}"
    return (
        f"the requests arrive at {rates[0]:.3g}/s in {first.label} and at {rates[1]:.3g}/s in {other.label}: "
        f"{SAME_RATE}"
    )
