"""Means over seeds."""

from io import StringIO

import pytest
from rich.console import Console

from experiments.sweep.plan import make_plan, read_over
from experiments.sweep.replicates import TITLES, Replicates, Spread, measures_of, replicates_of, written
from experiments.sweep.results import Measure
from experiments.sweep.table import results_table


def test_means_are_over_seeds_with_the_least_the_most_and_an_interval() -> None:
    """SLO attainments 0.5, 0.9 and 1.0: mean 0.8, standard error 0.15275, and t is 4.3027. A measure that no
    seed has is left out."""
    over = [read_over("topology.servers=3"), read_over("seed=1:3")]
    plan = make_plan("two-flows", over=over, policies=("fair",), fabric="sim")
    nothing = dict.fromkeys(TITLES)
    found = [
        {
            "topology.servers": 3,
            "policy": "fair",
            "seed": seed,
            "error": None,
            **nothing,
            "slo_attainment": met,
        }
        for seed, met in ((1, 0.5), (2, 0.9), (3, 1.0))
    ]

    (three,) = replicates_of(plan, found)

    assert three == Replicates(
        values={"topology.servers": 3},
        policy="fair",
        count=3,
        spreads={
            "slo_attainment": Spread(
                mean=pytest.approx(0.8),
                least=0.5,
                most=1.0,
                low=pytest.approx(0.8 - 0.6572, abs=1e-4),
                high=pytest.approx(0.8 + 0.6572, abs=1e-4),
            )
        },
    )


@pytest.mark.parametrize(("counts", "shown"), [((0, 0), False), ((0, 3), True)])
def test_pruned_requests_are_shown_if_there_are_any(counts: tuple[int, int], shown: bool) -> None:
    plan = make_plan("two-flows", over=[read_over("seed=1:2")], policies=("fair",), fabric="sim")
    nothing = dict.fromkeys(TITLES)
    found = [
        {**nothing, "policy": "fair", "seed": seed, "error": None, "slo_attainment": 1.0, "pruned": count}
        for seed, count in enumerate(counts, start=1)
    ]

    replicates = replicates_of(plan, found)

    assert (Measure.PRUNED in measures_of(replicates)) is shown
    assert written(Measure.PRUNED, replicates[0].spreads[Measure.PRUNED].mean) == ("1.5" if shown else "0")


def test_the_rate_of_the_requests_is_told_beside_what_became_of_them() -> None:
    """5.3 and 5.325 requests/s: 5.3125 on average."""
    plan = make_plan("quickstart", over=[read_over("seed=1:2")], policies=("fair",), fabric="sim")
    found = [
        {**dict.fromkeys(TITLES), "policy": "fair", "seed": seed, "error": None, "arrival_rps": rate}
        for seed, rate in ((1, 5.3), (2, 5.325))
    ]
    console = Console(width=80, record=True, file=StringIO())
    console.print(results_table(plan, replicates_of(plan, found)))
    assert "requests" in console.export_text(clear=False)
    assert "5.31" in console.export_text()
