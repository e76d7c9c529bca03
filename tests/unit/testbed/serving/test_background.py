"""Background transfers: when each pair of ranks sends, and what a run makes of them."""

from typing import Any

import pytest

from controller.flow import Flow, Level, Stage
from controller.policies import make_policy
from controller.scheduler import Scheduler
from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.results.measures import measure
from experiments.results.summary import summarise_run
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Background, Job
from testbed.record import RunRecord
from testbed.serving.background import BackgroundTransfers

UP = "h1->s1"


def test_pairs_begin_at_even_distances_and_then_once_a_period() -> None:
    transfers = BackgroundTransfers(Background(pairs=((0, 4), (1, 5)), size_bytes=10, period_ns=100))
    assert transfers.due_ns == 0
    [first] = transfers.begin(0)
    assert (first.id, first.stage, first.src, first.dst) == ("background.0-4.0", Stage.BACKGROUND, 0, 4)
    assert transfers.due_ns == 50
    [second] = transfers.begin(50)
    assert (second.src, second.dst, transfers.due_ns, transfers.idle) == (1, 5, None, False)
    transfers.arrived(first.id)
    assert transfers.due_ns == 100  # one period after it began, although it arrived earlier
    [again] = transfers.begin(100)
    assert again.id == "background.0-4.1"


def test_a_transfer_that_takes_longer_than_a_period_is_followed_at_once_and_not_made_up_for() -> None:
    transfers = BackgroundTransfers(Background(pairs=((0, 4),), size_bytes=10, period_ns=100))
    [slow] = transfers.begin(0)
    assert transfers.due_ns is None
    transfers.arrived("f1")  # of somebody else
    assert not transfers.idle
    transfers.arrived(slow.id)  # at 350, say
    assert transfers.due_ns == 100
    [after] = transfers.begin(350)
    transfers.arrived(after.id)
    assert transfers.due_ns == 450


def test_without_any_nothing_is_due() -> None:
    transfers = BackgroundTransfers(None)
    assert (transfers.due_ns, transfers.idle, transfers.begin(0)) == (None, True, ())


@pytest.mark.parametrize(
    ("spec", "level"),
    [
        ("fair", Level.P3),
        ("stage", Level.SCAVENGER),
        ("mfs", Level.SCAVENGER),
        ("static", Level.SCAVENGER),
        ("static(background=2)", Level.P2),
        ("static(s1=2, s2=1, s3=2, background=2, weights=99:1)", Level.P2),
        ("static(s1=2, s2=1, s3=2, background=3, weights=90:9:1)", Level.P3),
        ("static(s1=2, s2=1, s3=2, weights=99:1)", Level.SCAVENGER),
    ],
)
def test_each_policy_treats_them_as_its_page_says(spec: str, level: Level) -> None:
    scheduler = Scheduler(make_policy(spec), ports={UP: 10**9})
    flow = Flow(id="f", stage=Stage.BACKGROUND, size_bytes=1, load={UP: 1})
    assert scheduler.submit(0, flow)[0].level is level
    standing = scheduler.standing(Stage.BACKGROUND, None)
    assert standing is not None
    assert standing.level is level


def test_they_are_no_load_against_which_urgency_is_measured() -> None:
    """A port with 1,000 B of background has nothing due, and the share of S1 and S2 stays 0 as they move."""
    scheduler = Scheduler(make_policy("mfs"), ports={UP: 8_000})
    scheduler.submit(0, Flow(id="f", stage=Stage.BACKGROUND, size_bytes=1_000, load={UP: 1_000}))
    scheduler.progress(10**9, "f", 0)
    assert scheduler.view.ports.rho(UP, 10**9) == 0
    assert scheduler.view.ports.due_bytes(UP, 10**18) == 0
    scheduler.completion(10**9, "f")


def job(policy: str, *settings: str) -> Job:
    texts = ["workload.requests=8", "workload.load=0.6", "fabric=sim", f'policies=["{policy}"]', *settings]
    return resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]


def played(policy: str, *settings: str) -> tuple[RunRecord, dict[str, Any]]:
    record = FABRICS["sim"]().run(job(policy, *settings), lambda progress: None)
    assert [check.name for check in record.fidelity.checks if not check.ok] == []
    return record, summarise_run(record, measure(record))


OFFLOAD = ("workload.background.gbps=4", "workload.background.transfer_mb=8")


def test_an_offload_goes_from_every_prefill_rank_to_a_decode_rank() -> None:
    """8 MB at 4 Gb/s are 16 ms."""
    made = job("fair", *OFFLOAD)
    assert made.background == Background(
        pairs=tuple((src, 8 + src % 2) for src in range(8)), size_bytes=8_000_000, period_ns=16_000_000
    )
    assert made.background.asked_bps == 32e9


def test_a_migration_goes_around_the_decode_ranks() -> None:
    made = job("fair", *OFFLOAD, "workload.background.pairs=migrate")
    assert made.background is not None
    assert made.background.pairs == ((8, 9), (9, 8))
    with pytest.raises(UserError, match=r"^workload\.background\.pairs: migrate needs two decode ranks"):
        job("fair", *OFFLOAD, "workload.background.pairs=migrate", "units.decode_ranks=1")


@pytest.mark.parametrize(
    "policy", ["fair", "stage", "mfs", "llf", "sebf", "karuna", "hermod", "mfs + requests"]
)
def test_a_run_serves_all_requests_and_counts_them_apart(policy: str) -> None:
    _, without = played(policy)
    record, run = played(policy, *OFFLOAD)
    assert run["completed"] == 8
    assert "background" not in without
    assert without["flows_by_stage"].keys() == run["flows_by_stage"].keys() == {"S1", "S2", "S3"}
    transfers = [flow for flow in record.flows if flow.stage is Stage.BACKGROUND]
    assert run["background"]["transfers"] == len(transfers) > 8
    assert run["background"]["bytes"] == 8_000_000 * len(transfers)
    assert 0 < run["background"]["bps"] <= 32e9 * 1.1


def test_a_load_and_unloaded_ttfts_are_those_without_them() -> None:
    with_them, without = job("fair", *OFFLOAD), job("fair")
    assert with_them.requests == without.requests


def test_mfs_and_stage_keep_requests_from_waiting_for_them() -> None:
    """12 Gb/s from each of eight servers are about all that two downlinks carry: below S3, nobody waits."""
    heavy = ("workload.background.gbps=12", "workload.background.transfer_mb=64")
    slower = {}
    for policy in ("fair", "stage", "mfs"):
        with_them, without = (played(policy, *settings)[1]["ttft_s"]["mean"] for settings in (heavy, ()))
        slower[policy] = with_them / without
    assert slower["fair"] > 1.05
    assert slower["stage"] == pytest.approx(1, abs=0.01)
    assert slower["mfs"] == pytest.approx(1, abs=0.01)


def test_stages_apart_have_links_for_them_only_if_there_are_any() -> None:
    ports = [
        {row.port for row in played("fair", "simulation.separate=true", *more)[0].links}
        for more in ((), OFFLOAD)
    ]
    assert not any(port.startswith("BG ") for port in ports[0])
    assert "BG h1->s1" in ports[1]
