"""The notes of a sweep on the rates at which requests arrive."""

from typing import Any

from experiments.sweep.notes import rate_notes, slo_notes
from experiments.sweep.plan import Plan, make_plan, read_over


def plan(*settings: str) -> Plan:
    over = [read_over("topology.nic_gbps=25,50"), read_over("seed=1:2")]
    return make_plan("quickstart", over=over, settings=settings, policies=("fair", "mfs"), fabric="sim")


def rows(of: Plan, rates: dict[tuple[int, int], float]) -> list[dict[str, Any]]:
    """A row per cell that has a rate, by its NICs and its seed."""
    return [
        {
            "topology.nic_gbps": cell.values["topology.nic_gbps"],
            "policy": cell.policy,
            "seed": cell.values["seed"],
            "arrival_rps": rates[cell.values["topology.nic_gbps"], cell.values["seed"]],
            "cell": f"cells/{cell.name}",
        }
        for cell in of.cells
        if (cell.values["topology.nic_gbps"], cell.values["seed"]) in rates
    ]


def test_one_load_is_another_rate_on_another_cluster() -> None:
    """Means over the seeds: (4 + 5) / 2 and (6 + 8) / 2."""
    asked = plan("workload.load=0.5")
    [told] = rate_notes(asked, rows(asked, {(25, 1): 4, (25, 2): 5, (50, 1): 6, (50, 2): 8}))
    assert told.startswith(
        "at load 0.5, 4.5 requests/s arrive with topology.nic_gbps=25, and 7 with topology.nic_gbps=50: "
    )
    assert "workload.rate is the same on all" in told


def test_rates_are_compared_over_the_seeds_that_all_points_have() -> None:
    """Seed 2 is missing at 50 Gb/s, and seed 1 has one rate."""
    asked = plan("workload.load=0.5")
    assert not [*rate_notes(asked, rows(asked, {(25, 1): 4, (25, 2): 8, (50, 1): 4}))]


def test_a_rate_that_was_asked_for_needs_no_note() -> None:
    """Of the same requests, those that count after a warm-up may differ."""
    asked = plan("workload.rate=5")
    assert not [*rate_notes(asked, rows(asked, {(25, 1): 4, (50, 1): 6}))]


def test_one_multiple_is_another_slo_on_another_cluster() -> None:
    asked = plan("slo.multiple=3")
    found = rows(asked, {(25, 1): 4, (50, 1): 4})
    for row in found:
        row["slo_mean_s"] = 75 / row["topology.nic_gbps"]
    assert not [*rate_notes(asked, found)]
    [told] = slo_notes(asked, found)
    assert told.startswith(
        "with slo.multiple 3, the mean SLO is 1.50 s with topology.nic_gbps=50, and 3.00 s with"
        " topology.nic_gbps=25: "
    )
