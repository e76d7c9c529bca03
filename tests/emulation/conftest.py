"""These tests need root and an installed Open vSwitch. If both are there, they must pass."""

import os
import shutil
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in this folder; skip them only without root or without the programs they need.

    Any other problem of the machine is a failure, and no reason to skip.
    """
    reason = _lacking()
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.emulation)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def _lacking() -> str:
    if os.geteuid() != 0:
        return "needs root"
    for program, package in (("ovs-vswitchd", "openvswitch-switch"), ("mnexec", "mininet")):
        if shutil.which(program) is None:
            return f"needs {program}: apt-get install {package}"
    return ""
