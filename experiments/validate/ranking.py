"""Whether two runs put the policies in the same order. Pure."""

import enum
from collections.abc import Callable, Mapping

import msgspec

from experiments.validate.compare import Pair


class RankedBy(enum.StrEnum):
    """The measures that policies are ranked by."""

    SLO_ATTAINMENT = "SLO attainment"
    MEAN_TTFT = "mean TTFT"


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """The order of the policies by one measure in both runs, the best first.

    `tau` is Kendall's tau-b; None if all policies tie in either run. `contradicted` are the pairs that tie
    in neither run and have opposite orders, as the emulated run orders them.
    """

    measure: str
    tie: float
    emulated: tuple[str, ...]
    simulated: tuple[str, ...]
    tau: float | None
    contradicted: tuple[tuple[str, str], ...]


def rank(
    measure: str,
    values: Mapping[str, Pair],
    *,
    smaller_is_better: bool,
    tie: float,
    relative: bool,
) -> Ranking:
    """Compare the orders that two runs put the policies in.

    Two policies tie if their values differ by at most `tie`, or if `relative` by that share of the larger
    value. Kendall's tau-b (Kendall, 1945) is agreements less contradictions, over the geometric mean of the
    numbers of pairs that do not tie in each run. Ties are decided pair by pair, so they need not be
    transitive. Policies that lack a value in either run are left out.
    """
    known = {name: pair for name, pair in values.items() if None not in (pair.emulated, pair.simulated)}
    sign = -1 if smaller_is_better else 1

    def side(which: Callable[[Pair], float | None]) -> dict[str, float]:
        return {name: sign * (which(pair) or 0.0) for name, pair in known.items()}

    def order(a: float, b: float) -> int:
        noise = tie * max(abs(a), abs(b)) if relative else tie
        return 0 if abs(a - b) <= noise else 1 if a > b else -1

    first, second = side(lambda pair: pair.emulated), side(lambda pair: pair.simulated)
    names = list(known)
    agree = told_first = told_second = 0
    contradicted: list[tuple[str, str]] = []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            one, other = (order(run[a], run[b]) for run in (first, second))
            agree += one * other
            told_first += one != 0
            told_second += other != 0
            if one * other < 0:
                contradicted.append((a, b) if one > 0 else (b, a))
    told = (told_first * told_second) ** 0.5
    return Ranking(
        measure=measure,
        tie=tie,
        emulated=_best_first(first),
        simulated=_best_first(second),
        tau=agree / told if told else None,
        contradicted=tuple(contradicted),
    )


def _best_first(values: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(sorted(values, key=lambda name: (-values[name], name)))
