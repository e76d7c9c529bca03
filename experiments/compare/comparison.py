"""Comparing directories of runs or of sweeps: what is compared with what, and what speaks against it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from experiments.compare import replicates as of_replicates
from experiments.compare import run_replicates
from experiments.compare import sides as of_sides
from experiments.compare.directories import directory_names
from experiments.compare.replicates import ReplicateDifference
from experiments.compare.runs import RunDifference, run_differences
from experiments.compare.sides import Side, sides_of
from experiments.errors import UserError
from experiments.results.reading import read_run

_MOST_TOLD: Final = 3
"""Reasons that are given for a refusal."""


class OverRequests(msgspec.Struct, frozen=True, kw_only=True):
    """How runs differ from `first`, request by request. `notes` are the objections that were waived."""

    first: Side
    differences: tuple[RunDifference, ...]
    notes: tuple[str, ...]


class OverReplicates(msgspec.Struct, frozen=True, kw_only=True):
    """How policies differ from `reference` over replicates.

    `notes` are the objections that were waived, and what is left out because nothing can be paired with it.
    """

    reference: str
    differences: tuple[ReplicateDifference, ...]
    notes: tuple[str, ...]


def compared(
    paths: Sequence[Path], *, against: str | None, replicates: bool, anyway: bool
) -> OverRequests | OverReplicates:
    """Compare the runs, or the sweeps, in `paths` with `against` (default: the first policy of the first).

    Runs are compared request by request; sweeps, and runs that are `replicates`, over replicates. Raises
    `UserError` for directories that cannot be compared, and unless `anyway` is set also for those whose
    comparison would mislead.
    """
    sweeps = [path for path in paths if (path / "sweep.json").is_file()]
    if sweeps and len(sweeps) < len(paths):
        raise UserError("compare runs with runs, or sweeps with sweeps; these are both")
    if sweeps or replicates:
        return _over_replicates(paths, bool(sweeps), against, anyway)
    return _over_requests(paths, against, anyway)


def _over_requests(paths: Sequence[Path], against: str | None, anyway: bool) -> OverRequests:
    sides = sides_of(paths)
    labels = [side.label for side in sides]
    first = sides[labels.index(_chosen(against, labels))]
    sides = [first, *(side for side in sides if side is not first)]
    if len(sides) < 2:
        raise UserError(f"{paths[0]}: there is one run only, under {first.policy}; name another DIR")
    notes = _waived(of_sides.objections(sides), anyway)
    return OverRequests(first=first, differences=tuple(run_differences(sides)), notes=notes)


def _over_replicates(
    paths: Sequence[Path], sweeps: bool, against: str | None, anyway: bool
) -> OverReplicates:
    no_replicates: list[str] = []
    if sweeps:
        known = of_replicates.of_sweeps(paths)
    else:
        directory_names(paths)
        directories = [read_run(path) for path in paths]
        known = of_replicates.of_runs(directories)
        no_replicates = run_replicates.objections(directories)
    labels = list(dict.fromkeys(one.side for one in known))
    if not labels:
        raise UserError("nothing to compare: no cell has finished")
    reference = _chosen(against, labels)
    if len(labels) < 2:
        raise UserError(f"nothing to compare: {reference} is the only policy")
    notes = _waived([*no_replicates, *of_replicates.objections(known, reference)], anyway)
    found = of_replicates.replicate_differences(known, reference)
    if not found:
        raise UserError(f"no other policy has a replicate in common with {reference}")
    notes = (*notes, *of_replicates.left_out(known, reference))
    return OverReplicates(reference=reference, differences=tuple(found), notes=notes)


def _chosen(against: str | None, labels: Sequence[str]) -> str:
    if against is None:
        return labels[0]
    found = [label for label in labels if label == against or label.startswith(f"{against} (")]
    if not found:
        raise UserError(f"--against {against}: there is no such run; there are {', '.join(labels)}")
    return found[0]


def _waived(objections: Sequence[str], anyway: bool) -> tuple[str, ...]:
    if objections and not anyway:
        told, more = objections[:_MOST_TOLD], len(objections) - _MOST_TOLD
        reasons = "; ".join([*told, f"and {more} more like these"] if more > 0 else told)
        raise UserError(f"{reasons}; --anyway compares them all the same")
    return tuple(objections)
