#!/usr/bin/env python3
"""Draw the map of this experiment: what mfs gains over fair and over stage, by the rate of NICs and by load.

    .venv/bin/python experiments/paper/10-where-it-pays/draw_map.py SWEEP MAP.svg

SWEEP is the directory of the sweep in this folder's `run`, whose first policy is mfs. The gain is in points
of SLO attainment. A star says that the 95 % interval over the seeds leaves out 0.
"""

import csv
import statistics
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt

NIC, LOAD = "topology.nic_gbps", "workload.load"
RIVALS = ("fair", "stage")


def main(sweep: Path, out: Path) -> None:
    differences = [row for row in rows(sweep / "differences.csv") if row["measure"] == "slo_attainment"]
    if {row["against"] for row in differences} != {"mfs"}:
        sys.exit(f"{sweep}: the first policy of the sweep must be mfs")
    gains = {(row["policy"], float(row[NIC]), float(row[LOAD])): row for row in differences}
    nics = sorted({nic for _, nic, _ in gains}, reverse=True)
    loads = sorted({load for *_, load in gains})
    waits = waiting(rows(sweep / "sweep.csv"))

    mpl.rcParams.update({"svg.hashsalt": "map", "svg.fonttype": "none", "font.size": 8})
    figure, panels = plt.subplots(1, len(RIVALS), figsize=(7, 2.6), sharey=True, layout="constrained")
    # What is drawn are differences of the rival from mfs, so their sign is turned.
    values = [[[-100 * float(gains[rival, x, y]["mean"]) for x in nics] for y in loads] for rival in RIVALS]
    most = max(abs(value) for panel in values for row in panel for value in row)
    for panel, rival, shown in zip(panels, RIVALS, values, strict=True):
        image = panel.imshow(shown, origin="lower", aspect="auto", cmap="RdBu", vmin=-most, vmax=most)
        for i, load in enumerate(loads):
            for j, nic in enumerate(nics):
                star = "*" if gains[rival, nic, load]["shown"] == "True" else ""
                ink = "white" if abs(shown[i][j]) > 0.6 * most else "black"
                panel.text(j, i, f"{shown[i][j]:+.1f}{star}", ha="center", va="center", color=ink)
        panel.set_xticks(range(len(nics)), [f"{nic:g}\n{waits[nic]:.2f}" for nic in nics])
        panel.set_yticks(range(len(loads)), [f"{load:g}" for load in loads])
        panel.set_xlabel("rate of a NIC, Gb/s\nwaiting for transfers, s per s of compute")
        panel.set_title(f"mfs over {rival}")
    panels[0].set_ylabel("load")
    figure.colorbar(image, ax=panels, label="gain, points of SLO attainment")
    figure.savefig(out, metadata={"Date": None})


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def waiting(cells: list[dict[str, str]]) -> dict[float, float]:
    """By NIC rate, the time that busy GPUs wait under fair per time that they compute; mean of all cells."""
    found: dict[float, list[float]] = {}
    for cell in cells:
        if cell["policy"] == "fair":
            computing = float(cell["gpus_computing"])
            found.setdefault(float(cell[NIC]), []).append(float(cell["gpus_busy"]) / computing - 1)
    return {nic: statistics.fmean(each) for nic, each in found.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
