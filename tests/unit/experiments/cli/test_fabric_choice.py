"""The fabric that a run takes, and messages about fabrics that lack something."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy_fabric import TWO_FLOWS, Mfs, ToyFabric

from testbed.fabric import FabricName, Requirement
from testbed.fabrics import FABRICS

ROOT = Requirement(name="root", ok=False, detail="this is user 7", fix="sudo")


OVS = Requirement(name="Open vSwitch", ok=False, detail="absent", fix="apt install openvswitch-switch")


def test_a_fabric_that_lacks_something_says_what_installs_it(mfs: Mfs, tmp_path: Path) -> None:
    mfs.fabric(ToyFabric(needs=(OVS,)))

    assert mfs(*TWO_FLOWS, "--out", "there") == 2

    assert "the fabric 'toy' cannot run here; missing:" in mfs.err
    assert "apt install openvswitch-switch" in mfs.err
    assert not (tmp_path / "there").exists()


def test_our_fabrics_are_called_by_the_names_that_a_user_writes(mfs: Mfs) -> None:
    fabric = ToyFabric(needs=(OVS,))
    fabric.name = FabricName.MININET
    mfs.fabric(fabric)

    assert mfs(*TWO_FLOWS) == 2

    assert "the fabric 'mininet' cannot run here; missing:" in mfs.err


def test_something_useful_but_not_needed_may_be_missing(mfs: Mfs) -> None:
    mfs.fabric(ToyFabric(needs=(Requirement(name="CUDA", ok=False, detail="", needed=False),)))

    assert mfs(*TWO_FLOWS) == 0


def test_the_doctor_says_what_is_missing_and_what_a_run_takes_instead(
    mfs: Mfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FABRICS, "mininet", lambda: ToyFabric(needs=(OVS,)))

    assert mfs("doctor") == 0
    assert "mininet: cannot run here\n  for Open vSwitch: apt install openvswitch-switch\n" in mfs.out
    assert "toy: can run here" in mfs.out
    assert mfs.out.splitlines()[-1] == "auto, the default: sim"
    assert mfs("doctor", "--fabric", "mininet") == 2
    assert mfs("doctor", "--fabric", "mininett") == 2

    monkeypatch.setitem(FABRICS, "mininet", lambda: ToyFabric())
    assert mfs("doctor", "--fabric", "mininet") == 0
    assert mfs.out.splitlines()[-1] == "auto, the default: mininet"


def test_a_run_is_emulated_where_that_can_be(mfs: Mfs, monkeypatch: pytest.MonkeyPatch) -> None:
    emulated = ToyFabric()
    monkeypatch.setitem(FABRICS, "mininet", lambda: emulated)

    assert mfs("run", "two-flows", "--policy", "fair", "--json") == 0

    assert emulated.ran == [("fair", 1)]
    assert json.loads(mfs.out)["notes"] == []
    assert "cannot run" not in mfs.err


def test_a_run_is_simulated_where_the_emulation_lacks_something(
    mfs: Mfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale is 1, as on the simulated fabric, and the results say why it was chosen."""
    simulated = ToyFabric()
    monkeypatch.setitem(FABRICS, "mininet", lambda: ToyFabric(needs=(ROOT, OVS)))
    monkeypatch.setitem(FABRICS, "sim", lambda: simulated)

    assert mfs("run", "two-flows", "--policy", "fair", "--json", "--out", "there") == 0

    told = (
        "the emulated fabric cannot run here (missing: root, Open vSwitch): simulating instead;"
        " `mfs doctor` says what to install or change"
    )
    summary = json.loads(mfs.out)
    assert simulated.ran == [("fair", 1)]
    assert summary["scale"] == {"time_dilation": 1.0, "bytes_scale": 1.0}
    assert summary["notes"][0] == told
    assert f"mfs: {told}" in mfs.err.splitlines()
    assert "fabric: sim\n" in (tmp_path / "there" / "scenario.yaml").read_text()


def test_the_emulated_fabric_asked_for_by_name_is_not_replaced(
    mfs: Mfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FABRICS, "mininet", lambda: ToyFabric(needs=(OVS,)))

    assert mfs("run", "two-flows", "--fabric", "mininet") == 2
    assert "Open vSwitch: absent" in mfs.err


def test_what_the_fabrics_need_is_looked_up_without_the_packages_of_the_emulation() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'mininet', 'ryu', 'os_ken', 'eventlet')))\n"
        "from testbed.fabrics import choose\n"
        "print(choose().name)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout in ("mininet\n", "sim\n")
