#!/usr/bin/env python3
"""Write the table of this experiment: each policy on each fabric.

    .venv/bin/python experiments/paper/11-three-fabrics/fill_table.py RUNS README.md

RUNS has the directories of the runs in this folder's `run`.
"""

import json
import re
import sys
from pathlib import Path

from experiments.results.readable_numbers import duration, share

FABRICS = ("simulated", "emulated", "rehearsed")


def main(runs: Path, page: Path) -> None:
    lines = ["| fabric | policy | SLO met | mean TTFT | mean CCT | faithful |", "|---|---|---|---|---|---|"]
    for fabric in FABRICS:
        for run in json.loads((runs / fabric / "summary.json").read_text(encoding="utf-8"))["runs"]:
            times = duration(run["ttft_s"]["mean"]), duration(run["cct_s"]["mean"])
            faithful = "yes" if run["fidelity"]["faithful"] else "no"
            cells = fabric, f"`{run['policy']}`", share(run["slo_attainment"]), *times, faithful
            lines.append(f"| {' | '.join(cells)} |")
    text = page.read_text(encoding="utf-8")
    table = "".join(f"{line}\n" for line in lines)
    between = r"(?<=<!-- runs -->\n).*?(?=<!-- end -->)"
    page.write_text(re.sub(between, table, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
