#!/usr/bin/env python3
"""Draw how many points of SLO attainment the first policy of sweeps meets more than each rival, by cluster.

    .venv/bin/python experiments/paper/draw_differences.py SWEEPS OUT.svg NAME...

SWEEPS has the sweeps NAME of an experiment, all with the same first policy. Bars are 95 % intervals over
the replicates. Of each sweep, only NAME/differences.csv is read. The rows that the NAME.csv of the experiment
keeps of it are enough.
"""

import csv
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt

RIVALS = {
    "fair": ("0.6", "s"),
    "stage": ("tab:blue", "o"),
    "mfs": ("tab:orange", "D"),
    "triage": ("black", "d"),
    "static(s1=2, s2=1, s3=2)": ("tab:cyan", "o"),
    "hermod": ("tab:green", "^"),
    "llf(stall=on)": ("tab:purple", "v"),
    "karuna": ("tab:brown", "P"),
    "edf": ("tab:pink", "X"),
    "sjf": ("tab:olive", "*"),
}
"""How rivals are drawn: those that the sweeps have, in this order from the top."""
SWEPT = {"workload.kind": "{} prompts", "workload.load": "load {}"}


def main(sweeps: Path, out: Path, names: list[str]) -> None:
    clusters: dict[str, dict[str, dict[str, str]]] = {}
    first: set[str] = set()
    for name in names:
        with (sweeps / name / "differences.csv").open(newline="", encoding="utf-8") as text:
            for row in csv.DictReader(text):
                if row["measure"] == "slo_attainment":
                    first.add(row["against"])
                    words = [SWEPT[key].format(row[key]) for key in SWEPT if key in row]
                    clusters.setdefault(", ".join([name, *words]), {})[row["policy"]] = row

    if len(first) != 1:
        sys.exit(
            f"{sweeps}: sweeps must have the same first policy, not {', '.join(sorted(first)) or 'none'}"
        )
    ahead = first.pop()
    mpl.rcParams.update({"svg.hashsalt": "triage", "svg.fonttype": "none", "font.size": 8})
    drawn = [rival for rival in RIVALS if any(rival in rows for rows in clusters.values())]
    figure, axes = plt.subplots(figsize=(7, 0.12 * len(drawn) * len(clusters) + 0.9), layout="constrained")
    for i, rows in enumerate(clusters.values()):
        for j, rival in enumerate(drawn):
            colour, marker = RIVALS[rival]
            # What is given are differences of the rival from triage, so their sign is turned.
            mean, low, high = (-100 * float(rows[rival][key]) for key in ("mean", "high", "low"))
            at = -i + 0.72 * ((len(drawn) - 1) / 2 - j) / len(drawn)
            axes.plot([low, high], [at, at], color=colour, linewidth=1.2)
            axes.plot(
                mean, at, marker, color=colour, markersize=4, label=f"{ahead} over {rival}" if not i else None
            )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks([-i for i in range(len(clusters))], list(clusters))
    axes.set_ylim(0.6 - len(clusters), 0.6)
    axes.set_xlabel("points of SLO attainment")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
