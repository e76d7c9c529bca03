"""The goals that a simulation has to meet."""

from typing import Any

from experiments.validate.compare import Comparison, Pair
from experiments.validate.goals import goals_of
from experiments.validate.ranking import rank


def ranked(tie: float = 0.0, relative: bool = False, **values: tuple[float, float]) -> Any:
    pairs = {name: Pair(*both) for name, both in values.items()}
    return rank("TTFT", pairs, smaller_is_better=True, tie=tie, relative=relative)


def comparison(ttft: float = 1.0, cct: float = 1.0, within: float = 0.95) -> Comparison:
    """`ttft` and `cct` are simulated over emulated; `within` is the share of flows that are right."""
    ones = Pair(1.0, 1.0)
    return Comparison(
        requests=1,
        ttft_mean_s=Pair(1.0, ttft),
        ttft_p50_s=ones,
        ttft_p99_s=ones,
        slo_attainment=ones,
        cct_mean_s=Pair(1.0, cct),
        stages=(),
        flows=1,
        matched=1,
        within=within,
    )


def unmet(free: dict[str, Comparison], **others: Any) -> list[str]:
    said = {"replayed": free, "rankings": (), "unfaithful": (), "mean_error": 0.1, "flow_share": 0.9} | others
    return [f"{goal.name}: {goal.value}" for goal in goals_of(free=free, **said) if not goal.met]


def test_the_worst_policy_decides_whether_a_mean_is_close_enough() -> None:
    assert unmet({"fair": comparison(1.09), "mfs": comparison(0.95)}) == []
    assert unmet({"fair": comparison(1.05), "mfs": comparison(0.88)}) == [
        "mean TTFT within 10%: -12.0% (mfs)"
    ]


def test_flows_and_collectives_are_judged_where_both_ran_the_same_batches() -> None:
    free = {"fair": comparison(cct=0.5, within=0.2)}
    assert unmet(free, replayed={"fair": comparison(within=0.9)}) == []
    assert unmet(free, replayed={"fair": comparison(within=0.8)}) == ["90% of flows within 15%: 80.0% (fair)"]


def test_a_ranking_that_is_contradicted_and_a_run_that_is_not_faithful_are_unmet() -> None:
    ranking = ranked(fair=(1, 2), mfs=(2, 1))
    assert unmet({"fair": comparison()}, rankings=(ranking,), unfaithful=("mfs",)) == [
        "emulated runs are faithful: not mfs",
        "same ranking by TTFT: not fair before mfs",
    ]
