"""What this testbed concludes about policies, checked on the simulated fabric, which is deterministic.

A failure means that a change of the code has changed a conclusion. If the change is right, the pages that
state it change with it: README.md, docs/measured/mfs.md and experiments/paper.
"""

from functools import cache
from pathlib import Path

import msgspec
import pytest

from controller.units import NS_PER_S
from experiments.resolve.jobs import resolve
from experiments.results.paired import Difference, over_replicates
from experiments.results.requests import counted, slo_attainment
from experiments.scenario.reading import load_scenario, override
from testbed.job import Collect
from testbed.simulation.run import SimulatedRun

PAPER = Path(__file__).parents[2] / "experiments" / "paper"
WHERE_IT_PAYS = PAPER / "10-where-it-pays" / "all-to-all.yaml"
SEEDS = range(1, 9)
FEWER_SEEDS = range(1, 5)
"""For a point whose runs take long, and whose difference is large."""

Point = tuple[str, tuple[str, ...]]
"""A scenario, and what is set in it."""

BUSY: Point = ("quickstart", ("workload.requests=100", "workload.load=1.3"))
SHARED_NICS: Point = (str(PAPER / "02-testbed" / "scenario.yaml"), ("gpu=h100", "workload.kind=agent"))
"""Collectives and S3 press on the same NICs here, so that urgent S3 holds up collectives under `mfs`."""
ACROSS_SERVERS: Point = (
    str(PAPER / "15-at-scale" / "scenario.yaml"),
    (
        "topology.servers=16",
        "units.prefill_units=2",
        "units.decode_ranks=64",
        "workload.requests=40",
        "workload.warmup=8",
        "workload.rate=12",
    ),
)
"""Half of the cluster of experiment 15: units of TP4 EP8 whose all-to-alls cross servers."""
SAME_BATCHES: Point = (BUSY[0], (*BUSY[1], "serving.batches_of=fair"))
SAME_BATCHES_POLICIES = ("mfs", "stage", "fair")


def at(nic_gbps: float, load: float) -> Point:
    """A point of the map of experiment 10."""
    return str(WHERE_IT_PAYS), (f"topology.nic_gbps={nic_gbps}", f"workload.load={load}")


class Reached(msgspec.Struct, frozen=True):
    """The SLO attainment, in points of 100, and the mean TTFT in model seconds."""

    met: float
    ttft_s: float


@cache
def reached(point: Point, policies: tuple[str, ...], seed: int) -> dict[str, Reached]:
    name, settings = point
    texts = [*settings, f"seed={seed}", f"policies={list(policies)}".replace("'", '"')]
    found = {}
    for job in resolve(load_scenario(name, [override(text) for text in texts])).jobs:
        record = SimulatedRun(msgspec.structs.replace(job, collect=Collect.SUMMARY), lambda _: None).run()
        rows = counted(record.requests)
        ttft = [row.ttft_ns for row in rows if row.ttft_ns is not None]
        met = slo_attainment(rows)
        assert met is not None
        assert len(ttft) == len(rows)
        found[job.policy] = Reached(100 * met, sum(ttft) / len(ttft) / NS_PER_S)
    return found


def gain(
    point: Point, policy: str, over: str, policies: tuple[str, ...], measure: str, seeds: range = SEEDS
) -> Difference:
    """`policy` less `over`, paired over the seeds."""
    of_seeds = [reached(point, policies, seed) for seed in seeds]
    return over_replicates([getattr(one[policy], measure) - getattr(one[over], measure) for one in of_seeds])


class TestQuickstartCloseToSaturation:
    """Also what is compared with it: pytest-xdist gives a class to one process, which plays each run once."""

    POLICIES = ("mfs", "stage", "fair", "sjf", "reverse")

    @pytest.mark.parametrize("rival", ["fair", "sjf", "reverse"])
    def test_mfs_meets_more_slos_than(self, rival: str) -> None:
        found = gain(BUSY, "mfs", rival, self.POLICIES, "met")
        assert found.low is not None
        assert found.low > 0, found

    def test_no_policy_is_worse_than_the_reverse_of_the_right_order(self) -> None:
        met = {
            policy: sum(reached(BUSY, self.POLICIES, seed)[policy].met for seed in SEEDS)
            for policy in self.POLICIES
        }
        assert min(met, key=lambda policy: met[policy]) == "reverse", met

    def test_against_a_static_order_of_stages_no_loss_is_shown(self) -> None:
        found = gain(BUSY, "mfs", "stage", self.POLICIES, "met")
        assert found.high is not None
        assert found.high > 0, found

    def test_what_flows_alone_bring_is_smaller_than_what_other_batches_add(self) -> None:
        alone = gain(SAME_BATCHES, "mfs", "fair", SAME_BATCHES_POLICIES, "met")
        own = gain(BUSY, "mfs", "fair", self.POLICIES, "met")
        assert alone.low is not None
        assert alone.low > 0
        assert alone.mean < own.mean

    def test_with_the_same_batches_no_later_first_token_than_in_a_static_order_is_shown(self) -> None:
        found = gain(SAME_BATCHES, "mfs", "stage", SAME_BATCHES_POLICIES, "ttft_s")
        assert found.low is not None
        assert found.low <= 0, found


class TestTheMap:
    """Two points of the map where `mfs` gains over `fair`."""

    POLICIES = ("mfs", "fair", "stage")

    @pytest.mark.parametrize("nic_gbps", [12.5, 25])
    def test_mfs_gains_at_load_0_7(self, nic_gbps: float) -> None:
        found = gain(at(nic_gbps, 0.7), "mfs", "fair", self.POLICIES, "met")
        assert found.low is not None
        assert found.low > 0, found

    @pytest.mark.parametrize("nic_gbps", [12.5, 25])
    def test_a_static_order_of_stages_is_enough(self, nic_gbps: float) -> None:
        found = gain(at(nic_gbps, 0.7), "mfs", "stage", self.POLICIES, "met")
        assert not found.shown, found


class TestWhereTheNetworkHasTime:
    def test_no_difference_in_slos_is_shown(self) -> None:
        found = gain(at(25, 0.5), "mfs", "fair", ("mfs", "fair"), "met")
        assert not found.shown, found


class TestTriage:
    def test_where_mfs_is_far_behind_a_static_order_triage_is_not(self) -> None:
        found = gain(SHARED_NICS, "triage", "mfs", ("triage", "mfs"), "met")
        assert found.low is not None
        assert found.low > 0, found


class TestAllToAllsAcrossServers:
    def test_mfs_meets_more_slos_than_fair(self) -> None:
        found = gain(ACROSS_SERVERS, "mfs", "fair", ("mfs", "fair"), "met", FEWER_SEEDS)
        assert found.low is not None
        assert found.low > 0, found
