"""The result of runs on the same requests, a sentence for each: who met how much, and whether it differs."""

from collections.abc import Sequence

from experiments.compare.runs import RunDifference, means, run_differences
from experiments.compare.sides import Side, objections
from experiments.results.difference_words import Unit, difference_words
from experiments.results.paired import Difference
from experiments.results.readable_numbers import duration, share

ONLY_THESE = (
    "Brackets hold 95 % intervals over these requests. Other seeds may say otherwise: sweep the seed to know"
    " (mfs sweep --over seed=1:8)."
)


def result_sentences(sides: Sequence[Side]) -> list[str]:
    """Say what each side met. From the second on, say how it differs from the first, unless something speaks
    against a comparison: the last sentence then says what."""
    first = sides[0]
    against = objections(sides) if len(sides) > 1 else []
    if against or len(sides) == 1:
        told = [f"{_met(side)}." for side in sides]
        others = len(against) - 1
        more = f" (and {others} more {'reason' if others == 1 else 'reasons'})" if others > 0 else ""
        return told + [f"No difference is stated: {against[0]}{more}." for _ in against[:1]]
    found = run_differences(sides)
    told = [f"{_met(side)}{_difference(one, first)}" for side, one in zip(sides[1:], found, strict=True)]
    return [f"{_met(first)}.", *told]


def _met(side: Side) -> str:
    """Return "mfs met the SLO of 43 of 48 requests (89.6 %), with a mean TTFT of 212 ms"."""
    attainment, ttft = means(side)
    met = round(attainment * len(side.requests))
    said = f"{side.label} met the SLO of {met} of {len(side.requests)} requests ({share(attainment)})"
    return said if ttft is None else f"{said}, with a mean TTFT of {duration(ttft)}"


def _difference(found: RunDifference, first: Side) -> str:
    attainment = _words(found.attainment, Unit.POINTS, "in SLO met")
    if found.ttft_s is None:
        return f". Against {first.label}: {attainment}."
    alone = f" ({found.alone} requests have a first token under one of the two only)" if found.alone else ""
    ttft = _words(found.ttft_s, Unit.SECONDS, "in mean TTFT")
    return f". Against {first.label}: {attainment}, {ttft}{alone}."


def _words(difference: Difference, unit: Unit, what: str) -> str:
    said, interval = difference_words(difference, unit)
    return f"{said} {what} {interval}" if interval else f"{said} {what} (too few requests for an interval)"
