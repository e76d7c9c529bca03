"""How policies differ over replicates: run directories or the cells of sweeps, paired by their work."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments.compare.directories import directory_names
from experiments.compare.sides import SAME_RATE, SAME_SLO
from experiments.errors import UserError
from experiments.results.checksums import check_seal, read_json
from experiments.results.difference_words import Unit, difference_words
from experiments.results.ended_early import not_finished
from experiments.results.paired import REPLICATES, SEED, WINDOW, Difference, over_replicates
from experiments.results.readable_numbers import duration
from experiments.results.reading import RunDirectory

MEASURES: Final = {
    "slo_attainment": ("SLO met", Unit.POINTS),
    "ttft_mean_s": ("TTFT mean", Unit.SECONDS),
    "ttft_p99_s": ("TTFT p99", Unit.SECONDS),
    "cct_mean_s": ("CCT mean", Unit.SECONDS),
    "coflow_mean_s": ("coflow mean", Unit.SECONDS),
}
"""The measures that are compared, by their columns in `sweep.csv`, with their headings and units."""


class Replicate(msgspec.Struct, frozen=True, kw_only=True):
    """The measures of one side, such as a policy, on one piece of work.

    `work` says which: two sides are paired where theirs is equal. `values` are those of swept keys;
    replicates of different values are not put together. `offered` is how many requests arrived, at which rate
    and with which mean SLO (s), by which different work is told.
    """

    side: str
    values: dict[str, Any]
    work: str
    faithful: bool
    offered: tuple[int, float | None, float | None]
    measures: dict[str, float | None]

    @property
    def point(self) -> str:
        return json.dumps(self.values)

    @property
    def where(self) -> str:
        return ", ".join([*(f"{key}={value}" for key, value in self.values.items()), self.work])


class ReplicateDifference(msgspec.Struct, frozen=True, kw_only=True):
    """How `measure` of `side` differs from that of `against`, whose mean is `reference`."""

    values: dict[str, Any]
    side: str
    against: str
    measure: str
    reference: float
    difference: Difference

    @property
    def words(self) -> tuple[str, str]:
        return difference_words(self.difference, MEASURES[self.measure][1])


def of_runs(directories: Sequence[RunDirectory]) -> list[Replicate]:
    """Return the runs in `directories`, each of which is a replicate of its policies."""
    found = []
    for directory in directories:
        for run in directory.summary["runs"]:
            found.append(
                Replicate(
                    side=run["policy"],
                    values={},
                    work=str(directory.path),
                    faithful=run["fidelity"]["faithful"],
                    offered=(run["requests"], run.get("arrival_rps"), run.get("slo_mean_s")),
                    measures={
                        "slo_attainment": run["slo_attainment"],
                        "ttft_mean_s": run["ttft_s"]["mean"],
                        "ttft_p99_s": run["ttft_s"]["p99"],
                        "cct_mean_s": run["cct_s"]["mean"],
                        "coflow_mean_s": run["coflow_completion_s"]["mean"],
                    },
                )
            )
    return found


def of_cells(rows: Iterable[Mapping[str, Any]], keys: Sequence[str], among: str = "") -> list[Replicate]:
    """Return the finished cells of a sweep over `keys`, whose columns are those of `sweep.csv`.

    With `among`, sides are named after it too.
    """
    return [
        Replicate(
            side=f"{row['policy']} ({among})" if among else row["policy"],
            values={key: row[key] for key in keys},
            work=_work(row),
            faithful=row["faithful"],
            offered=(row["requests"], row.get("arrival_rps"), row.get("slo_mean_s")),
            measures={name: row[name] for name in MEASURES},
        )
        for row in rows
        if row["error"] is None
    ]


def _work(row: Mapping[str, Any]) -> str:
    seed = f"seed {row[SEED]}"
    return f"window {row[WINDOW]}, {seed}" if WINDOW in row else seed


def of_sweeps(paths: Sequence[Path]) -> list[Replicate]:
    """Return the finished cells of sweeps. With several, sides are named after the directory too.

    Raises `UserError` for a directory that holds no sweep, or is named twice.
    """
    names = directory_names(paths)
    found = []
    for path in paths:
        content = read_sweep(path)
        keys = [key for key in content["over"] if key not in REPLICATES]
        found += of_cells(content["cells"], keys, names[path] if len(paths) > 1 else "")
    return found


def read_sweep(path: Path) -> dict[str, Any]:
    """Return the content of `sweep.json`. Raises `UserError` for a directory that holds no sweep."""
    if not (path / "sweep.json").exists():
        raise UserError(not_finished(path) or f"{path}: not the directory of a sweep: it holds no sweep.json")
    try:
        content = read_json(path / "sweep.json")
    except UserError as error:
        raise UserError(f"{path}: cannot be read as a sweep: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path / 'sweep.json'}: cannot be read as a sweep: not a JSON object")
    missing = {"over", "cells"} - content.keys()
    if missing:
        raise UserError(f"{path / 'sweep.json'} lacks {', '.join(sorted(missing))}: not a sweep of ours")
    check_seal(path / "sweep.json", content)
    return content


def objections(replicates: Sequence[Replicate], against: str) -> list[str]:
    """Say why a comparison would mislead: unfaithful replicates, and pairs that had different work."""
    found = [f"{one.side}, {one.where}: not faithful" for one in replicates if not one.faithful]
    reference = {(one.point, one.work): one for one in replicates if one.side == against}
    for one in replicates:
        other = reference.get((one.point, one.work))
        if other is not None and other.offered != one.offered:
            found.append(f"{one.side} and {against}, {one.where}: {_other_work(one, other)}")
    return found


def _other_work(one: Replicate, other: Replicate) -> str:
    (count, rps, slo_s), (others, other_rps, other_slo_s) = one.offered, other.offered
    if count != others or rps is None or other_rps is None:
        return "not the same requests arrived"
    if rps != other_rps:
        return f"{rps:.4g} and {other_rps:.4g} requests/s arrived: {SAME_RATE}"
    if slo_s is None or other_slo_s is None:
        return "one of them does not say which SLOs were promised"
    return f"the mean SLO is {duration(slo_s)} and {duration(other_slo_s)}: {SAME_SLO}"


def left_out(replicates: Sequence[Replicate], against: str) -> list[str]:
    """Say for each side where it has no work in common with `against`, so that no difference is known."""
    work: dict[tuple[str, str], set[str]] = {}
    values: dict[str, dict[str, Any]] = {}
    for one in replicates:
        work.setdefault((one.side, one.point), set()).add(one.work)
        values[one.point] = one.values
    found = []
    for side in dict.fromkeys(one.side for one in replicates):
        points = [point for name, point in work if name == side]
        alone = [point for point in points if not work[side, point] & work.get((against, point), set())]
        if side == against or not alone:
            continue
        if len(alone) == len(points):
            found.append(f"{side} is left out: no replicate in common with {against} for the same values")
        else:
            where = "; ".join(", ".join(f"{key}={one}" for key, one in values[at].items()) for at in alone)
            found.append(f"{side} is left out at {where}: no replicate in common with {against}")
    return found


def replicate_differences(replicates: Iterable[Replicate], against: str) -> list[ReplicateDifference]:
    """Compare every other side with `against`, for the same values, over the work that both have."""
    sides: dict[tuple[str, str], dict[str, Replicate]] = {}
    for one in replicates:
        sides.setdefault((one.point, one.side), {})[one.work] = one
    found = []
    for (point, side), ours in sides.items():
        theirs = sides.get((point, against), {})
        if side == against:
            continue
        for measure in MEASURES:
            pairs = [
                (mine, other)
                for work, one in ours.items()
                if work in theirs
                and (mine := one.measures[measure]) is not None
                and (other := theirs[work].measures[measure]) is not None
            ]
            if pairs:
                found.append(
                    ReplicateDifference(
                        values=next(iter(ours.values())).values,
                        side=side,
                        against=against,
                        measure=measure,
                        reference=sum(other for _, other in pairs) / len(pairs),
                        difference=over_replicates([mine - other for mine, other in pairs]),
                    )
                )
    return found
