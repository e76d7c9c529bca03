"""How runs on the same requests differ, request by request."""

from collections.abc import Sequence

import msgspec

from controller.units import NS_PER_S
from experiments.compare.sides import Side
from experiments.results.difference_words import Unit, difference_words
from experiments.results.paired import Difference, over_requests
from experiments.results.requests import meets_slo
from experiments.results.statistics import mean


class RunDifference(msgspec.Struct, frozen=True, kw_only=True):
    """How `side` differs from `against`: in the share of requests that meet their SLO, and in TTFT.

    `attainment` is over all requests. `ttft_s` is over those with a first token under both; it is None
    if there are none. `alone` are the requests that have one under one of the two only.
    """

    side: str
    against: str
    requests: int
    attainment: Difference
    ttft_s: Difference | None
    alone: int


def run_differences(sides: Sequence[Side]) -> list[RunDifference]:
    """Compare each side with the first one. Requests that only one of the two has do not count."""
    first, *others = sides
    reference = {row.request: row for row in first.requests}
    found = []
    for side in others:
        pairs = [(row, reference[row.request]) for row in side.requests if row.request in reference]
        both = [
            (mine.ttft_ns - theirs.ttft_ns) / NS_PER_S
            for mine, theirs in pairs
            if mine.ttft_ns is not None and theirs.ttft_ns is not None
        ]
        found.append(
            RunDifference(
                side=side.label,
                against=first.label,
                requests=len(pairs),
                attainment=over_requests([float(meets_slo(a)) - meets_slo(b) for a, b in pairs]),
                ttft_s=over_requests(both) if both else None,
                alone=sum((a.ttft_ns is None) != (b.ttft_ns is None) for a, b in pairs),
            )
        )
    return found


def means(side: Side) -> tuple[float, float | None]:
    """The share of requests of a side that meet their SLO, and the mean TTFT of those with a first token."""
    ttft = [row.ttft_ns / NS_PER_S for row in side.requests if row.ttft_ns is not None]
    return sum(map(meets_slo, side.requests)) / len(side.requests), mean(ttft)


def words(found: RunDifference) -> tuple[str, str]:
    """The differences in words, each with its interval below it: of SLO attainment, and of the TTFT."""
    attainment = "\n".join(difference_words(found.attainment, Unit.POINTS))
    ttft = "-" if found.ttft_s is None else "\n".join(difference_words(found.ttft_s, Unit.SECONDS))
    return attainment, ttft
