"""The capacities of policies in words."""

from collections.abc import Iterator, Sequence

from experiments.capacity.answer import PolicyCapacity
from experiments.capacity.question import Question
from experiments.capacity.search import Outcome
from experiments.results.readable_numbers import share


def sentences(found: Sequence[PolicyCapacity], question: Question) -> Iterator[str]:
    """Yield a sentence on each ratio, and one on all that makes the numbers say less than they seem to."""
    kept = f"an SLO attainment of {share(question.attain)}"
    for one in found[1:]:
        yield from _ratio(one, found[0].policy, kept)
    for one in found:
        held = one.bracket
        if not one.replicates:
            yield f"{one.policy}: no replicate has finished"
        elif held.outcome is Outcome.NEVER:
            yield (
                f"{one.policy}: {kept} does not hold even at {held.fails:.4g} requests/s, the lowest rate:"
                " start lower (--load), or it cannot be kept at all"
            )
        elif held.outcome is Outcome.ALWAYS:
            yield (
                f"{one.policy}: {kept} still holds at {held.holds:.4g} requests/s, the highest rate: end"
                " higher (--load)"
            )
        elif one.replicates > 1 and one.rate_rps is not None and one.rate_rps.low is None:
            yield f"{one.policy}: no interval, because without one of the replicates {kept} is not bracketed"
        yield from _beyond(one)
        if held.again is not None:
            yield (
                f"{one.policy}: {kept} does not hold at {held.fails:.4g} requests/s, but again at"
                f" {held.again:.4g}: the curve does not fall everywhere. What counts is the lowest rate at"
                " which it does not hold; more requests or replicates make the curve smoother"
            )
    if found and all(one.replicates < 2 for one in found):
        yield "one replicate has no interval: --over seed=1:8, or --over window=8 for a trace"


def _beyond(one: PolicyCapacity) -> Iterator[str]:
    """Say where the interval of a rate goes on beyond all rates that were tried."""
    rate, tried = one.rate_rps, one.tried_rps
    if rate is None or rate.low is None or rate.high is None or tried is None:
        return
    ends = []
    if rate.low < tried[0]:
        ends.append(f"below {tried[0]:.4g}, the lowest rate that was tried")
    if rate.high > tried[1]:
        ends.append(f"above {tried[1]:.4g}, the highest rate that was tried")
    if ends:
        yield (
            f"{one.policy}: the interval [{rate.low:.3g}, {rate.high:.3g}] requests/s goes on"
            f" {', and '.join(ends)}: there it rests on no run; more replicates make it narrower, and --load"
            " moves the ends of the search"
        )


def _ratio(one: PolicyCapacity, against: str, kept: str) -> Iterator[str]:
    ratio = one.ratio
    if ratio is None:
        return
    times = f"{ratio.value:.2f}x"
    if ratio.low is None or ratio.high is None:
        yield f"{one.policy} carries {times} the rate of {against} at {kept}, without an interval"
        return
    interval = f"[{ratio.low:.2f}, {ratio.high:.2f}]"
    if one.ratio_shown:
        yield f"{one.policy} carries {times} {interval} the rate of {against} at {kept}"
    else:
        rates = f"the rates of {one.policy} and {against} at {kept}"
        yield f"no difference shown between {rates}: {times} {interval}"
