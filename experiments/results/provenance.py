"""What made a run: the versions of what it ran on, and what is another each time the same is run."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psutil

from testbed.record import RunRecord

FABRIC_VERSIONS = ("openflow", "open_vswitch", "torch")
PACKAGES = ("mfs-testbed", "torch", "ryu", "os-ken", "mininet", "numpy", "pyarrow", "pyzmq")


def timing(records: Sequence[RunRecord], *, command: str, started: datetime | None) -> dict[str, Any]:
    """What is another each time the same is run, and so is not in the summary: `timing.json`."""
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
