"""These tests need root and an installed Open vSwitch; where both are there, they must pass."""

import os
import shutil
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder; skip it only for what a user would have to install or become.

    Anything else that is wrong with the machine is a failure, not a reason to look away.
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
