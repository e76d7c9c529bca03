"""The provenance of a run: versions, and what differs each time the same scenario runs."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import psutil

from controller.sources import CODE_ROOT
from experiments.results.code import code_version
from experiments.results.machine import Machine
from testbed.record import RunRecord

FABRIC_VERSIONS = ("openflow", "open_vswitch", "torch")
PACKAGES = ("mfs-testbed", "torch", "ryu", "os-ken", "mininet", "numpy", "pyarrow", "pyzmq")


def timing(records: Sequence[RunRecord], *, command: str, started: datetime | None) -> dict[str, Any]:
    """Return the content of `timing.json`: what differs each time and so is not in the summary."""
    return {
        "command": command,
        "started": None if started is None else started.isoformat(timespec="seconds"),
        "wall_s": {record.policy: record.wall_s for record in records},
        "host": {
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
    }


def versions(
    records: Sequence[RunRecord], files: Mapping[str, str], machine: Machine | None = None
) -> dict[str, Any]:
    """Return the versions of the code, Python, packages and what fabrics reported, and the digests `files`.

    In its `facts`, a fabric reports what no package says: the version of Open vSwitch, for instance, and
    the OpenFlow library that was used. `files` has the digest of each file that the run read, by path.
    `machine` is what was measured of this machine before the run.
    """
    found: dict[str, Any] = {
        "code": {"path": str(CODE_ROOT), **msgspec.to_builtins(code_version())},
        "files": dict(files),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    if machine is not None:
        found["machine"] = msgspec.to_builtins(machine)
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    for record in records:
        found |= {name: str(record.facts[name]) for name in FABRIC_VERSIONS if name in record.facts}
    return found
