"""Writing a run directory: everything a run left behind (`experiments.run_directory` reads it).

`docs/results.md` describes every file. Each file is replaced atomically, and `summary.json` comes
after all that it sums up, so a directory that has one holds complete tables.
"""

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.flow import PortId
from experiments.atomic_file import replacing, write_text
from experiments.perfetto import trace_events, write_trace
from experiments.report import write_report
from experiments.result_tables import write_tables
from experiments.summary import Summary, finite, summarise
from testbed.job import Scale
from testbed.record import RunRecord

FABRIC_VERSIONS = ("openflow", "open_vswitch", "torch")
PACKAGES = ("mfs-testbed", "torch", "ryu", "os-ken", "mininet", "numpy", "pyarrow", "pyzmq")


def write_run(
    out: Path,
    *,
    scenario: str,
    fabric: str,
    seed: int,
    scale: Scale,
    resolved_yaml: str,
    notes: list[str],
    records: list[RunRecord],
    placement_text: list[str],
    link_bps: Mapping[PortId, int] | None = None,
    command: str = "",
) -> Summary:
    """Write the run into directory `out` (made if it is not there) and return its summary.

    `link_bps` are the nominal model rates of the links, for utilisation in the report; `command` is
    the line that made the run. Two records of one policy raise `ValueError`. A full disk or a
    directory that cannot be written raises `OSError`.
    """
    policies = [record.policy for record in records]
    if len(set(policies)) != len(policies):
        raise ValueError(f"each policy once per run, got {', '.join(policies)}")
    summary = summarise(
        scenario=scenario,
        fabric=fabric,
        seed=seed,
        scale=scale,
        records=records,
        notes=notes,
        placement_text=placement_text,
        link_bps=link_bps,
        command=command,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "scenario.yaml", resolved_yaml)
    _write_json(out / "versions.json", versions(records))
    write_tables(out, records)
    for record, run in zip(records, summary["runs"], strict=True):
        folder = out / run["folder"]
        folder.mkdir(exist_ok=True)
        _write_json(folder / "queues.json", record.queues)
        _write_json(folder / "fidelity.json", run["fidelity"])
        with replacing(folder / "trace.json") as temporary:
            write_trace(temporary, trace_events(record, scale), title=f"{scenario}: {record.policy}")
    _write_json(out / "summary.json", summary)
    write_report([out], out / "report.html")
    return summary


def versions(records: list[RunRecord]) -> dict[str, str]:
    """Version of Python, of ours and of each package that matters, and what the fabrics reported.

    A fabric reports what no package tells (Open vSwitch, which OpenFlow library was used) in `facts`.
    """
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    for record in records:
        found |= {name: str(record.facts[name]) for name in FABRIC_VERSIONS if name in record.facts}
    return found


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(finite(content), indent=2, allow_nan=False) + "\n")
