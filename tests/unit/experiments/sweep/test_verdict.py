"""What the page of a sweep says first: the result with intervals, then the limit, then what is missing."""

import re
from typing import Any

from experiments.sweep.differences import differences_of
from experiments.sweep.plan import Plan, make_plan, read_over
from experiments.sweep.results import Measure
from experiments.sweep.verdict import verdict


def plan(*over: str) -> Plan:
    return make_plan(
        "two-flows", over=[read_over(one) for one in over], policies=("fair", "mfs"), fabric="sim"
    )


def row(policy: str, seed: int, met: float, ttft: float, **more: Any) -> dict[str, Any]:
    measured = dict.fromkeys(Measure) | {Measure.SLO_ATTAINMENT: met, Measure.TTFT_MEAN_S: ttft}
    fixed = {Measure.FAITHFUL: True, "policy": policy, "seed": seed, "error": None, "cell": "c"}
    return measured | fixed | more


def said(plan: Plan, rows: list[dict[str, Any]]) -> str:
    return re.sub(r"<[^>]+>", " ", verdict(plan, rows, differences_of(plan, rows)))


def test_at_one_point_the_difference_has_its_interval() -> None:
    """Both differences are the same for both seeds: +20 points, and -50 ms."""
    rows = [row("fair", seed, 0.5, 0.3) for seed in (1, 2)]
    rows += [row("mfs", seed, 0.7, 0.25) for seed in (1, 2)]
    text = said(plan("seed=1:2"), rows)
    assert "fair met the SLO of 50.0 % of the requests, with a mean TTFT of 300 ms." in text
    wanted = (
        "mfs met the SLO of 70.0 % of the requests, with a mean TTFT of 250 ms. Against fair: +20.0 points in"
    )
    assert f"{wanted} SLO met [+20.0, +20.0]; -50.0 ms in mean TTFT [-50.0, -50.0] ms." in text
    assert text.index("Against fair") < text.index("Complete and faithful.")


def test_at_several_points_it_counts_where_a_difference_is_shown() -> None:
    """With 3 servers, +20 points for both seeds; with 4, +10 and -10; with 5, -5."""
    gains = {3: (0.2, 0.2), 4: (0.1, -0.1), 5: (-0.05, -0.05)}
    rows = []
    for servers, gain in gains.items():
        for seed in (1, 2):
            rows.append(row("fair", seed, 0.5, 0.3, **{"topology.servers": servers}))
            rows.append(row("mfs", seed, 0.5 + gain[seed - 1], 0.2, **{"topology.servers": servers}))
    text = said(plan("seed=1:2", "topology.servers=3,4,5"), rows)
    assert (
        "more SLO met at 1 of 3 points (+20.0 points), less SLO met at 1 of 3 points (-5.0 points),"
        " no difference shown in SLO met at 1 of 3 points; a lower mean TTFT at 3 of 3 points"
    ) in text


def test_one_seed_leaves_open_whether_it_is_chance() -> None:
    text = said(plan("seed=1"), [row("fair", 1, 0.5, 0.3), row("mfs", 1, 0.9, 0.2)])
    assert "Against" not in text
    assert "With one seed, it is not known whether a difference is more than chance." in text


def test_cells_that_are_missing_or_not_faithful_are_told() -> None:
    rows = [row("fair", seed, 0.5, 0.3) for seed in (1, 2)]
    rows += [row("mfs", 1, 0.7, 0.2), row("mfs", 2, 0.7, 0.2, **{Measure.FAITHFUL: False})]
    text = said(plan("seed=1:3"), rows)
    assert (
        "2 of 6 cells have no result. 1 of 6 cells are not faithful: draw no conclusions from them." in text
    )
    assert "No difference is stated, because cells are not faithful." in text
    assert "Against" not in text


def test_what_limits_the_cells_is_counted() -> None:
    rows = [row("fair", seed, 0.5, 0.3, **{Measure.LIMIT: "network"}) for seed in (1, 2)]
    rows += [
        row("mfs", seed, 0.5, 0.3, **{Measure.LIMIT: limit}) for seed, limit in ((1, "network"), (2, "none"))
    ]
    assert "Of 4 cells, 3 network-limited, 1 not saturated." in said(plan("seed=1:2"), rows)
