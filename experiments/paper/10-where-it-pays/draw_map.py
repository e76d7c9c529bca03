#!/usr/bin/env python3
"""Draw the map of this experiment: what policies gain, by the ratio of communication to compute and by load.

    .venv/bin/python experiments/paper/10-where-it-pays/draw_map.py SWEEPS MAP

SWEEPS is the directory of the sweeps of this folder's `run`. Writes MAP.svg, and its points to MAP.csv. The
ratio is how long GPUs that have a batch wait for transfers, per time that they compute, under `fair` at a
load of 0.1. Gains are in points of SLO attainment, with 95 % intervals over the replicates.
"""

import csv
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

from experiments.results.paired import over_replicates

NIC, LOAD = "topology.nic_gbps", "workload.load"
CLUSTERS = {"all-to-all": "o", "tensor-parallel": "s", "long-context": "D"}
ASIDE = {"all-to-all": -0.02, "tensor-parallel": 0.02, "long-context": 0.0}
"""Marks of clusters with nearly the same ratio are drawn a little below and above their load."""
SETTINGS = {"testbed": "paper's testbed", "simulation": "paper's simulation", "pod": "H100, 400 Gb/s"}
PANELS = (("mfs", "fair"), ("mfs", "stage"), ("triage", "mfs"), ("triage", "stage"))

Row = dict[str, str]


class Point(NamedTuple):
    """A row of MAP.csv: what `policy` gains over `rival` in one cluster."""

    cluster: str
    nic_gbps: float
    ratio: float
    load: float
    policy: str
    rival: str
    gain: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        return self.low > 0 or self.high < 0


def main(sweeps: Path, out: Path) -> None:
    points = [point for name in CLUSTERS for point in points_of(sweeps, name)]
    settings = {label: ratios(sweeps / f"settings-{name}")[0.0] for name, label in SETTINGS.items()}
    with out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as text:
        csv.writer(text).writerows([Point._fields, *([rounded(value) for value in one] for one in points)])
    draw(points, settings, out.with_suffix(".svg"))


def draw(points: list[Point], settings: dict[str, float], file: Path) -> None:
    mpl.rcParams.update({"svg.hashsalt": "map", "svg.fonttype": "none", "font.size": 8})
    figure, grid = plt.subplots(2, 2, figsize=(7, 5.6), sharex=True, sharey=True, layout="constrained")
    most = max(abs(point.gain) for point in points)
    for panel, pair in zip(grid.flat, PANELS, strict=True):
        for point in points:
            if (point.policy, point.rival) == pair:
                image = panel.scatter(
                    point.ratio,
                    point.load + ASIDE[point.cluster],
                    c=[point.gain],
                    cmap="RdBu",
                    vmin=-most,
                    vmax=most,
                    s=80,
                    marker=CLUSTERS[point.cluster],
                    edgecolors="black" if point.shown else "0.75",
                    linewidths=1.5 if point.shown else 0.6,
                )
        for label, ratio in settings.items():
            panel.axvline(ratio, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
            panel.text(ratio, 1.17, label, rotation=90, va="top", ha="right", fontsize=6, color="0.4")
        panel.set_xscale("log")
        panel.set_ylim(0.42, 1.18)
        panel.set_title(f"{pair[0]} over {pair[1]}", fontsize=9)
    figure.supxlabel("waiting for transfers on the nearly idle cluster, s per s of compute", fontsize=8)
    figure.supylabel("load", fontsize=8)
    handles = [
        Line2D([], [], marker=marker, linestyle="", mfc="white", mec="black", label=name)
        for name, marker in CLUSTERS.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    figure.colorbar(image, ax=grid, label="gain, points of SLO attainment (bold edge: shown)")
    figure.savefig(file, metadata={"Date": None})


def points_of(sweeps: Path, name: str) -> Iterable[Point]:
    idle = ratios(sweeps / f"{name}-idle")
    met: dict[tuple[float, float], dict[str, dict[str, float]]] = {}
    for cell in rows(sweeps / name):
        replicate = cell.get("seed", "") + "/" + cell.get("window", "")
        at = met.setdefault((float(cell[NIC]), float(cell[LOAD])), {}).setdefault(cell["policy"], {})
        at[replicate] = 100 * float(cell["slo_attainment"])
    for (nic, load), by_policy in met.items():
        for policy, rival in PANELS:
            found = over_replicates(
                [value - by_policy[rival][key] for key, value in by_policy[policy].items()]
            )
            assert found.low is not None, found
            assert found.high is not None, found
            yield Point(name, nic, idle[nic], load, policy, rival, found.mean, found.low, found.high)


def ratios(sweep: Path) -> dict[float, float]:
    """By NIC rate, or for 0 if the sweep has only one."""
    waits: dict[float, list[float]] = {}
    for cell in rows(sweep):
        ratio = float(cell["gpus_busy"]) / float(cell["gpus_computing"]) - 1
        waits.setdefault(float(cell.get(NIC, "0")), []).append(ratio)
    return {nic: statistics.fmean(each) for nic, each in waits.items()}


def rows(sweep: Path) -> list[Row]:
    with (sweep / "sweep.csv").open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def rounded(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
