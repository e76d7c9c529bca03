"""These tests need root and an installed Open vSwitch, as those in `tests/emulation` do."""

import os
import shutil
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in this folder; skip them only without root or without the programs they need."""
    lacks = os.geteuid() != 0 or not all(map(shutil.which, ("ovs-vswitchd", "mnexec", "nsenter")))
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.emulation)
            if lacks:
                item.add_marker(pytest.mark.skip(reason="needs root, Open vSwitch, Mininet and nsenter"))
