"""What a command shows of what may take long before a run."""

import pytest
from toy_fabric import Mfs

from experiments.cli import preparation_display

ASKED = ("run", "quickstart", "--fabric", "sim", "--policy", "fair", "--set", "workload.requests=4")
TOLD = "load: estimating the capacity, requests "


def test_a_long_estimate_of_the_capacity_is_shown(mfs: Mfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a cluster that no other test in this process has estimated."""
    monkeypatch.setattr(preparation_display, "_SHOWN_AFTER_S", 0.0)
    assert mfs(*ASKED, "--set", "topology.nic_gbps=17", "--out", "here") == 0
    told = [line for line in mfs.err.splitlines() if line.startswith("load: ")]
    assert told[0].startswith(TOLD)
    assert told[-1].startswith("load: done ")


def test_a_rate_needs_no_estimate(mfs: Mfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation_display, "_SHOWN_AFTER_S", 0.0)
    rate = ("--set", "workload.load=null", "--set", "workload.rate=5", "--set", "topology.nic_gbps=18")
    assert mfs(*ASKED, *rate, "--out", "here") == 0
    assert TOLD not in mfs.err
