"""The rows of the micro experiments give back the overheads that they were made with."""

import random
from collections.abc import Iterator

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
from experiments.calibrate.micro_jobs import PAUSE_S, collective_job, transfer_job
from testbed.job import Job
from testbed.record import FlowRow
from workers.plan import Collective

LINK_MBPS = 8.0
LINK_BPS = LINK_MBPS * 1e6  # a byte takes a microsecond
US = 1000


GOODPUT, BURST, TRANSFER_US, SHARE = 0.8, 10_000, 3_000, 0.02


def sent_us(size: int) -> float:
    """Time of a transfer of the made-up machine from its permit on."""
    return TRANSFER_US + max(0, size - BURST) / GOODPUT


def measured_transfers(job: Job, noise_us: float) -> Iterator[FlowRow]:
    """The flows of `transfer_job` as that machine carries them, each late by up to `noise_us`."""
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
        if kind == "high":  # the whole link except what the other is guaranteed
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
    """Each is up to 1 ms late, which is 0.5 % of the longest transfer, 200 ms."""
    found = links(noise_us=1000)
    assert found.goodput.value == pytest.approx(GOODPUT, rel=0.005)
    assert found.burst_bytes.value == pytest.approx(BURST, abs=1000)
    assert found.transfer_us.value == pytest.approx(TRANSFER_US + 500, abs=250)
    assert found.transfer_us.p10 < found.transfer_us.value < found.transfer_us.p90


def test_a_line_goes_through_the_medians() -> None:
    """At 1 the median of 2, 3 and 100 is 3. The line through (1, 3) and (3, 7) is 2 x + 1."""
    line = through([(1, 2), (1, 100), (1, 3), (3, 7)])
    assert (line.slope, line.intercept_ns) == (pytest.approx(2), pytest.approx(1))


def test_nothing_measured_is_no_zero() -> None:
    with pytest.raises(TooFewSamples, match="permit_us: nothing was measured"):
        parameter("permit_us", [])
    with pytest.raises(TooFewSamples, match="two sizes"):
        through([(1, 2), (1, 3)])


MEMBERS, ALL_TO_ALL, COLLECTIVE_US, ROUND_US, KEPT_US, CHANGED_US = 4, 0.5, 2_000, 700, 1_000, 4_000


PORT = Port(GOODPUT * LINK_BPS, BURST)


def measured_collectives(job: Job, permit_us: int, levels: tuple[Level, Level]) -> Iterator[FlowRow]:
    """The shares of `collective_job`: barriers on the first level, other collectives on the second."""
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
    """Permits by whether the level changes, bytes at half the goodput, 5 rounds after the first. Compute is
    late by 1, 2 and 5 ms; each batch begins 10 us after the end of the last."""
    found = collectives()
    assert found.permit_kept_us.value == KEPT_US
    assert found.permit_us.value == CHANGED_US
    assert found.all_to_all_goodput is not None
    assert found.all_to_all_goodput.value == pytest.approx(ALL_TO_ALL, rel=1e-4)
    assert found.collective_us.value == pytest.approx(COLLECTIVE_US, abs=2)
    assert found.round_us.value == pytest.approx(ROUND_US, abs=2)
    assert found.compute_us.value == 2000
    assert found.batch_us.value == 10
