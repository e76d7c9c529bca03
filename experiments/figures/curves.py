"""The curves of a figure and the cells of a table: a measure of sweeps against a swept key, by policy."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments.compare.replicates import read_sweep
from experiments.errors import UserError
from experiments.results.paired import REPLICATES, Difference, over_replicates
from experiments.sweep.plan import as_text

MEASURES: Final = {
    "slo_attainment": ("SLO met (%)", 100.0),
    "ttft_mean_s": ("mean TTFT (ms)", 1e3),
    "ttft_p50_s": ("median TTFT (ms)", 1e3),
    "ttft_p90_s": ("p90 TTFT (ms)", 1e3),
    "ttft_p99_s": ("p99 TTFT (ms)", 1e3),
    "cct_mean_s": ("mean CCT (ms)", 1e3),
    "cct_p99_s": ("p99 CCT (ms)", 1e3),
    "earliness_mean_s": ("mean earliness of S3 (ms)", 1e3),
    "coflow_mean_s": ("mean coflow time (ms)", 1e3),
    "tpot_mean_s": ("TPOT (ms)", 1e3),
    "gpus_busy": ("GPUs busy (%)", 100.0),
    "port_busy": ("busiest port busy (%)", 100.0),
    "background_gbps": ("background (Gb/s)", 1.0),
    "ceiling_slo_attainment": ("ceiling of SLO met (%)", 100.0),
    "ceiling_ttft_mean_s": ("ceiling of mean TTFT (ms)", 1e3),
}
"""The measures that can be drawn: their columns in `sweep.csv`, with axis labels and factors."""

POLICY: Final = "policy"
"""What a figure is against that has a point per policy."""

_ALIKE: Final = 1e-3
"""Curves are one if they differ by less than this share of the largest value anywhere."""


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A measure of one policy at each value of the x key: its mean over replicates, with an interval."""

    label: str
    x: tuple[Any, ...]
    y: tuple[Difference, ...]


def read_curves(
    paths: Sequence[Path], *, x: str | None, y: str, where: Mapping[str, str]
) -> tuple[str, list[Curve]]:
    """Read the curves of `y` against `x` from sweeps, and return what they are against, and the curves.

    `x` is a swept key, or `POLICY` for a point per policy; the default is the first swept key, and `POLICY`
    if only replicates were swept. `where` fixes other swept keys, by their values as text. With several
    sweeps, a policy that occurs in more than one is named after the directory too. Raises `UserError` for a
    directory, a key or a measure that cannot be drawn, and for a swept key that is neither drawn nor fixed.
    """
    if y not in MEASURES:
        raise UserError(f"--y {y}: there is no such measure; there are {', '.join(MEASURES)}")
    sweeps = [(path, read_sweep(path)) for path in paths]
    keys = list(dict.fromkeys(key for _, sweep in sweeps for key in sweep["over"] if key not in REPLICATES))
    against = x or next(iter(keys), POLICY)
    _check_keys(against, where, keys)
    policies = [policy for _, sweep in sweeps for policy in sweep["policies"]]
    found: dict[str, dict[str, list[tuple[Any, float]]]] = {}
    for path, sweep in sweeps:
        for cell in sweep["cells"]:
            if cell["error"] is not None or cell.get(y) is None:
                continue
            if any(as_text(cell.get(key)) != value for key, value in where.items()):
                continue
            policy = cell["policy"]
            label = f"{policy} ({path.resolve().name})" if policies.count(policy) > 1 else policy
            place = label if against == POLICY else cell.get(against)
            at = found.setdefault(label, {}).setdefault(json.dumps(place), [])
            at.append((place, cell[y]))
    _refuse_mixed(sweeps, {against, *REPLICATES, *where})
    if not found:
        raise UserError(f"no finished cell has {y}" + (" there" if where else ""))
    return against, [_curve(label, by_x) for label, by_x in found.items()]


def _check_keys(against: str, where: Mapping[str, str], keys: Sequence[str]) -> None:
    """Raise `UserError` unless `against` can be drawn against, and the keys of `where` can be fixed."""
    if against in REPLICATES:
        raise UserError(
            f"--x {against}: a figure has the mean over replicates, and --ci their spread; leave out --x for"
            f" {keys[0] if keys else 'a point per policy'}, or read each {against} in sweep.csv"
        )
    swept = f"swept are {', '.join(keys)}" if keys else f"only {' or '.join(REPLICATES)} was swept"
    for key in ({against} - {POLICY}) | set(where):
        if key not in keys:
            raise UserError(f"{key}: was not swept; {swept}")


def _refuse_mixed(sweeps: Sequence[tuple[Path, Mapping[str, Any]]], told: set[str]) -> None:
    """A mean over another key would be a mean over different questions."""
    for path, sweep in sweeps:
        for key, values in sweep["over"].items():
            if key not in told and len(values) > 1:
                choices = ", ".join(map(as_text, values))
                raise UserError(
                    f"{path}: {key} was swept, too; choose one with --where {key}=VALUE: {choices}"
                )


def _curve(label: str, by_x: Mapping[str, Sequence[tuple[Any, float]]]) -> Curve:
    points = [(pairs[0][0], over_replicates([value for _, value in pairs])) for pairs in by_x.values()]
    if all(isinstance(at, int | float) and not isinstance(at, bool) for at, _ in points):
        points.sort(key=lambda point: float(point[0]))
    return Curve(label=label, x=tuple(at for at, _ in points), y=tuple(found for _, found in points))


def named_once(curves: Sequence[Curve]) -> list[Curve]:
    """Put curves that are the same into one, which has all their names: "stage = karuna"."""
    largest = max((abs(one.mean) for curve in curves for one in curve.y), default=0.0)
    kept: list[Curve] = []
    for curve in curves:
        for i, known in enumerate(kept):
            same = known.x == curve.x and all(
                abs(a.mean - b.mean) <= _ALIKE * largest for a, b in zip(known.y, curve.y, strict=True)
            )
            if same:
                kept[i] = msgspec.structs.replace(known, label=f"{known.label} = {curve.label}")
                break
        else:
            kept.append(curve)
    return kept
