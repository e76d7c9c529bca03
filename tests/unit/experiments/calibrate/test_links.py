"""Overheads: fitted to made-up measurements they are found again; read, named, turned into model units."""

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from result_rows import flow_row, request_row, span_row

from controller.flow import Level, Stage
from experiments.calibrate.fit import (
    Collectives,
    Links,
    Port,
    TooFewSamples,
    fit_collectives,
    fit_links,
    parameter,
    through,
)
from experiments.calibrate.links import calibrate, members_for
from experiments.calibrate.micro_jobs import PAUSE_S, collective_job, transfer_job
from experiments.cli import app as cli
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
from testbed.fabric import Progress
from testbed.fabrics import FABRICS
from testbed.job import Job, Overheads, Scale
from testbed.record import FlowRow, RunRecord
from testbed.simulation.fabric_sim import SimulatedFabric
from workers.plan import Collective

LINK_MBPS = 8.0
LINK_BPS = LINK_MBPS * 1e6  # a byte takes a microsecond
US = 1000


# --- transfers --------------------------------------------------------------------------------------

GOODPUT, BURST, TRANSFER_US, SHARE = 0.8, 10_000, 3_000, 0.02


def sent_us(size: int) -> float:
    """What a transfer of the made-up machine takes from its permit."""
    return TRANSFER_US + max(0, size - BURST) / GOODPUT


def measured_transfers(job: Job, noise_us: float) -> Iterator[FlowRow]:
    """The flows of `transfer_job` as that machine would have carried them, each a little late."""
    late = random.Random(1)
    incast: dict[str, int] = {}
    for micro in job.flows:
        kind, number = micro.transfer.id.split(".")[:2]
        if kind == "incast":
            incast[number] = incast.get(number, 0) + micro.transfer.size_bytes
    high_us = 0.0
    for micro in job.flows:
        kind, number = micro.transfer.id.split(".")[:2]
        size = micro.transfer.size_bytes
        if kind == "high":  # the whole link, but for what the other is guaranteed
            took_us = high_us = size / GOODPUT / (1 - SHARE)
        elif kind == "low":
            took_us = high_us + (size - SHARE * GOODPUT * high_us) / GOODPUT
        else:
            took_us = sent_us(incast[number] if kind == "incast" else size)
        took_us += late.uniform(0, noise_us)
        yield flow_row(
            id=micro.transfer.id,
            stage=micro.transfer.stage,
            size_bytes=size,
            submit_ns=micro.start_ns - 1 * US,
            permit_ns=micro.start_ns,
            finish_ns=micro.start_ns + round(took_us * US),
        )


def links(noise_us: float = 0.0) -> Links:
    return fit_links(measured_transfers(transfer_job(LINK_MBPS, 4), noise_us), LINK_BPS)


def test_what_transfers_take_is_taken_apart_exactly_where_nothing_disturbs() -> None:
    found = links()
    assert found.transfer_us.value == pytest.approx(TRANSFER_US)
    assert found.goodput.value == pytest.approx(GOODPUT)
    assert found.burst_bytes.value == pytest.approx(BURST, abs=1)
    assert found.level_share.value == pytest.approx(SHARE, abs=1e-4)
    assert found.incast.value == pytest.approx(1.0, abs=1e-4)


def test_noise_moves_what_is_found_by_little_and_shows_in_the_spread() -> None:
    """Up to 1 ms late each: a millisecond of the longest transfer, 200 ms, is 0.5 %."""
    found = links(noise_us=1000)
    assert found.goodput.value == pytest.approx(GOODPUT, rel=0.005)
    assert found.burst_bytes.value == pytest.approx(BURST, abs=1000)
    assert found.transfer_us.value == pytest.approx(TRANSFER_US + 500, abs=250)
    assert found.transfer_us.p10 < found.transfer_us.value < found.transfer_us.p90


def test_a_line_goes_through_the_medians() -> None:
    """At 1 the median of 2, 3 and 100 is 3; through (1, 3) and (3, 7): 2 x + 1."""
    line = through([(1, 2), (1, 100), (1, 3), (3, 7)])
    assert (line.slope, line.intercept_ns) == (pytest.approx(2), pytest.approx(1))


def test_nothing_measured_is_no_zero() -> None:
    with pytest.raises(TooFewSamples, match="permit_us: nothing was measured"):
        parameter("permit_us", [])
    with pytest.raises(TooFewSamples, match="two sizes"):
        through([(1, 2), (1, 3)])


# --- collectives ------------------------------------------------------------------------------------

MEMBERS, ALL_TO_ALL, COLLECTIVE_US, ROUND_US, KEPT_US, CHANGED_US = 4, 0.5, 2_000, 700, 1_000, 4_000
PORT = Port(GOODPUT * LINK_BPS, BURST)


def measured_collectives(job: Job, permit_us: int, levels: tuple[Level, Level]) -> Iterator[FlowRow]:
    """The shares of `collective_job`, barriers on the first level and the rest on the second."""
    now_us = 0
    for plan in job.plans:
        for layer in plan.layers:
            for step in layer.steps:
                if not isinstance(step, Collective):
                    now_us += round(PAUSE_S * 1e6)
                    continue
                kind, _, size = step.label.partition(".")
                took_us = float(COLLECTIVE_US)
                if kind != "barrier":
                    drain_us = max(0, int(size) - BURST) / GOODPUT
                    rounds = 2 * (MEMBERS - 1)
                    took_us += (
                        drain_us / ALL_TO_ALL if kind == "all-to-all" else drain_us + (rounds - 1) * ROUND_US
                    )
                for member in range(MEMBERS):
                    level = levels[kind != "barrier"]
                    yield flow_row(
                        id=f"{step.id}.{member}",
                        stage=Stage.COLLECTIVE,
                        coflow=step.id,
                        src=member,
                        submit_ns=now_us * US,
                        permit_ns=(now_us + permit_us) * US,
                        finish_ns=round((now_us + permit_us + took_us) * US),
                        level_first=level,
                        level_last=level,
                    )
                now_us += round(permit_us + took_us)


def collectives() -> Collectives:
    job = collective_job(LINK_MBPS, MEMBERS, "fair")
    pause_ms = PAUSE_S * 1000
    return fit_collectives(
        list(measured_collectives(job, KEPT_US, (Level.P3, Level.P3))),
        list(measured_collectives(job, CHANGED_US, (Level.P1, Level.P6))),
        [span_row(0, "compute", 0, round(pause_ms) + late) for late in (1, 2, 5)],
        [request_row(start_ns=start * US, prefill_end_ns=(start + 50) * US) for start in (0, 60, 120)],
        port=PORT,
        members=MEMBERS,
    )


def test_what_collectives_take_is_taken_apart() -> None:
    """Permits by whether the level changes, bytes at half the goodput, 5 rounds after the first; compute is
    late by 1, 2 and 5 ms; batches begin 10 us after the one before has ended."""
    found = collectives()
    assert found.permit_kept_us.value == KEPT_US
    assert found.permit_us.value == CHANGED_US
    assert found.all_to_all_goodput is not None
    assert found.all_to_all_goodput.value == pytest.approx(ALL_TO_ALL, rel=1e-4)
    assert found.collective_us.value == pytest.approx(COLLECTIVE_US, abs=2)
    assert found.round_us.value == pytest.approx(ROUND_US, abs=2)
    assert found.compute_us.value == 2000
    assert found.batch_us.value == 10


# --- the experiments --------------------------------------------------------------------------------


def test_every_collective_comes_after_a_barrier_and_a_pause() -> None:
    job = collective_job(15, 4, "fair")
    for layer in job.plans[0].layers[:-1]:
        assert [step.label.split(".")[0] for step in layer.steps] in (
            ["pause", "barrier", "pause", "all-to-all"],
            ["pause", "barrier", "pause", "all-reduce"],
        )


def test_the_bytes_in_a_label_are_those_a_member_sends() -> None:
    for members in (2, 4, 8):
        for layer in collective_job(15, members, "fair").plans[0].layers[:-1]:
            step = layer.steps[-1]
            assert isinstance(step, Collective)
            sent = sum(step.sent_by(0, members).values())
            assert sent == int(step.label.split(".")[1])


def test_the_command_on_ideal_links_finds_nothing_to_add(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """All but `transfer_us` and `burst_bytes`, which are told apart by the burst of a real port."""
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
    """A machine that adds just these; the experiments' model units are those of the machine."""

    def __init__(self, overheads: Overheads) -> None:
        self._overheads = overheads

    def run(self, job: Job, progress: Callable[[Progress], None]) -> RunRecord:
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


# --- as a simulation takes them ---------------------------------------------------------------------


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
        (None, "No such file"),
        ("{}", "is no file of `mfs calibrate`"),
        ("not json", "is no file of `mfs calibrate`"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "calibration.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_calibration(path)


def test_an_overhead_that_is_not_known_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, calibration(goodput=0.97))
    content = json.loads(path.read_text())
    content["parameters"]["magic"] = content["parameters"].pop("goodput")
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="'magic', which is no overhead known here"):
        read_calibration(path)
