"""Calibrations: their file, and their conversion to units of the model."""

import json
from pathlib import Path

import msgspec
import pytest

from experiments.errors import UserError
from experiments.resolve.calibration import (
    Calibration,
    Parameter,
    in_model_units,
    read_calibration,
    write_calibration,
)
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.job import Overheads, Scale


def calibration(**values: float) -> Calibration:
    one = Parameter(value=1.0, p10=1.0, p90=1.0, samples=1)
    return Calibration(
        link_mbps=15,
        members=4,
        faithful=True,
        facts={},
        incast=one,
        parameters={name: msgspec.structs.replace(one, value=value) for name, value in values.items()},
    )


def test_wall_time_and_wire_bytes_become_those_of_the_model() -> None:
    """1 ms of wall time is 50 us at x20; 8,428 bytes on the wire are 842,800 at x0.01."""
    wall = {"permit_us": 1000.0, "burst_bytes": 8428.0, "goodput": 0.97}
    assert in_model_units(wall, Scale(time_dilation=20, bytes_scale=0.01)) == Overheads(
        permit_ns=50_000, burst_bytes=842_800, goodput=0.97
    )


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


def test_a_simulation_adds_nothing_unless_asked() -> None:
    assert overheads() == Overheads()


def test_what_is_named_goes_before_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, calibration(permit_us=2000, transfer_us=3000))
    settings = (f"simulation.calibration={path}", "simulation.overheads.permit_us=0")
    assert overheads(*settings) == Overheads(transfer_ns=300_000)


def test_a_calibration_lies_beside_the_scenario_that_names_it(tmp_path: Path) -> None:
    write_calibration(tmp_path / "cal.json", calibration(goodput=0.9))
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: quickstart\nsimulation: {calibration: cal.json}\nfabric: sim\n")
    chosen = load_scenario(str(mine), [override("workload.requests=1")])
    assert resolve(chosen).jobs[0].simulation.overheads == Overheads(goodput=0.9)


def test_the_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, calibration(goodput=0.97))
    assert read_calibration(path) == calibration(goodput=0.97)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{}", "is not a file of `mfs calibrate`"),
        ("not json", "is not a file of `mfs calibrate`"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "calibration.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_calibration(path)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("goodput", 2, "above 0, to 1"),
        ("goodput", 0, "above 0, to 1"),
        ("goodput", -1, "above 0, to 1"),
        ("permit_us", -1, "0 .. 1000000000"),
        ("burst_bytes", 1e12, "0 .. 1000000000"),
        ("level_share", 0.5, "0 .. 0.125"),
    ],
)
def test_a_value_has_the_same_range_in_a_calibration_and_in_a_setting(
    tmp_path: Path, name: str, value: float, allowed: str
) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, calibration(**{name: value}))
    with pytest.raises(UserError) as measured:
        overheads(f"simulation.calibration={path}")
    with pytest.raises(UserError) as named:
        overheads(f"simulation.overheads.{name}={value!r}")

    assert str(path) in str(measured.value)
    assert f": simulation.overheads.{name}: {float(value)!r} is out of range: " in str(measured.value)
    assert str(measured.value).endswith(f"allowed is {allowed} | null")
    assert str(named.value).endswith(f"allowed is {allowed} | null")


def test_an_overhead_that_is_not_known_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, calibration(goodput=0.97))
    content = json.loads(path.read_text())
    content["parameters"]["magic"] = content["parameters"].pop("goodput")
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="'magic', which is not a known overhead"):
        read_calibration(path)
