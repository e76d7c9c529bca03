"""`mfs calibrate`, with the simulated fabric in place of the emulated one."""

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from experiments.calibrate.links import calibrate, members_for
from experiments.cli import app as cli
from experiments.resolve.calibration import in_model_units, read_calibration
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabric import RunProgress
from testbed.fabrics import FABRICS
from testbed.job import Job, Overheads, Scale
from testbed.record import RunRecord
from testbed.simulation.fabric_sim import SimulatedFabric


def test_the_command_on_ideal_links_finds_nothing_to_add(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Except `transfer_us` and `burst_bytes`: only the burst of a real port tells them apart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FABRICS, "mininet", SimulatedFabric)
    monkeypatch.setattr(sys, "argv", ["mfs", "calibrate", "--out", "found.json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "overheads on 15 Mb/s links, groups of 4" in capfd.readouterr().out
    values = {name: one.value for name, one in read_calibration(Path("found.json")).parameters.items()}
    assert values["goodput"] == pytest.approx(1.0)
    assert values["all_to_all_goodput"] == pytest.approx(1.0, abs=0.02)
    assert values["level_share"] == pytest.approx(0.0, abs=1e-6)
    for name in ("permit_us", "permit_kept_us", "compute_us", "batch_us"):
        assert values[name] == 0


def test_the_experiments_find_the_overheads_that_a_simulation_was_given() -> None:
    given = {
        "goodput": 0.95,
        "burst_bytes": 8000,
        "permit_us": 4000,
        "permit_kept_us": 1000,
        "transfer_us": 3000,
        "all_to_all_goodput": 0.6,
        "compute_us": 200,
        "batch_us": 5000,
        "level_share": 0.02,
    }
    fabric = WithOverheads(in_model_units(given, Scale(time_dilation=1, bytes_scale=1)))
    found = calibrate(fabric, link_mbps=15, members=4, progress=lambda name, state: None).parameters
    assert {name: found[name].value for name in given} == pytest.approx(given, rel=0.03)


class WithOverheads(SimulatedFabric):
    """A machine with exactly these overheads. In the experiments, model units are units of the machine."""

    def __init__(self, overheads: Overheads) -> None:
        self._overheads = overheads

    def run(self, job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
        simulation = msgspec.structs.replace(job.simulation, overheads=self._overheads)
        return super().run(msgspec.structs.replace(job, simulation=simulation), progress)


def test_the_command_refuses_a_group_it_cannot_make(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mfs", "calibrate", "--members", "3"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "--members 3: one of 2, 4, 8" in capfd.readouterr().err


@pytest.mark.parametrize(("largest", "members"), [(0, 2), (2, 2), (3, 2), (6, 4), (32, 8)])
def test_a_group_that_can_be_timed_is_taken_for_one_as_large_or_larger(largest: int, members: int) -> None:
    assert members_for(largest) == members


def overheads(*settings: str) -> Overheads:
    texts = [
        "fabric=sim",
        "workload.requests=1",
        "scale.time_dilation=10",
        "scale.bytes_scale=0.01",
        *settings,
    ]
    return (
        resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0].simulation.overheads
    )
