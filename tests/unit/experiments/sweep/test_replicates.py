"""Means over seeds."""

import pytest

from experiments.sweep.plan import make_plan, read_over
from experiments.sweep.replicates import Replicates, Spread, replicates_of


def test_means_are_over_seeds_with_the_least_and_the_most() -> None:
    """SLO attainments 0.5, 0.9 and 1.0: mean 0.8. A measure that no seed has is left out."""
    over = [read_over("topology.servers=3"), read_over("seed=1:3")]
    plan = make_plan("two-flows", over=over, policies=("fair",), fabric="sim")
    nothing = dict.fromkeys(("ttft_mean_s", "ttft_p99_s", "cct_mean_s", "coflow_mean_s", "duration_s"))
    found = [
        {
            "topology.servers": 3,
            "policy": "fair",
            "seed": seed,
            "slo_attainment": met,
            "error": None,
            **nothing,
        }
        for seed, met in ((1, 0.5), (2, 0.9), (3, 1.0))
    ]

    (three,) = replicates_of(plan, found)

    assert three == Replicates(
        values={"topology.servers": 3},
        policy="fair",
        seeds=3,
        spreads={"slo_attainment": Spread(mean=pytest.approx(0.8), least=0.5, most=1.0)},
    )
