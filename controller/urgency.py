"""How urgent a flow or a batch is: formulas without state.

MLU, RLI, RED and the geometric thresholds are from MFS v1 (arXiv 2603.17456v1). The latest finish is from
classic least-laxity-first scheduling. Times are model nanoseconds, sizes model bytes, rates model bits/s.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from controller import _core
from controller.units import NS_PER_S


def mlu(due_bytes: int, time_left_ns: int, bps: int, rho: float = 0.0) -> float:
    """Minimal link utilisation: the share of a port's free capacity that must go to `due_bytes`.

    `due_bytes * 8 / (time_left * bps * (1 - rho))`, where `rho` is the share of the port that other stages
    take first. Above 1 the deadline cannot be met. 0 if nothing is due; otherwise infinite if no time is
    left. Raises `ValueError` for a `rho` outside [0, 1).

    1.25 MB in 1 ms on 100 Gb/s: 10 Mbit of the 100 Mbit that fit, 0.1; with rho 0.8, 0.5.
    """
    return _core.mlu(due_bytes, time_left_ns, bps, rho)


def thresholds(top: float, base: float, count: int) -> tuple[float, ...]:
    """The first `count` MLU thresholds `Q_i = top * base ** -i`, from the highest to the lowest.

    With top 0.5 (U in the paper) and base 4 (E), three of them: 0.5, 0.125, 0.03125.
    """
    return tuple(top * base**-i for i in range(count))


def rli(target_layer: int, current_layer: int) -> int:
    """Relative layer index: how many layers the batch computes before the one that needs the flow.

    0 for a flow whose layer has begun: it holds up compute now. Layer 7 while layer 3 runs: 4.
    """
    return max(0, target_layer - current_layer)


class RedSplit(NamedTuple):
    """Deadlines in two groups, each in ascending order; `loose` is empty if all are equal."""

    tight: tuple[int, ...]
    loose: tuple[int, ...]


def red_split(deadlines_ns: Sequence[int]) -> RedSplit:
    """The deadlines, sorted and split at their widest gap; if several are widest, at the first.

    If all deadlines are equal, or there is only one, all are tight. Raises `ValueError` without deadlines.
    10, 12, 40: the gap 12..40 splits off 40.
    """
    if not deadlines_ns:
        raise ValueError("a batch without deadlines has no RED")
    ordered = sorted(deadlines_ns)
    if ordered[0] == ordered[-1]:
        return RedSplit(tuple(ordered), ())
    gaps = [later - earlier for earlier, later in itertools.pairwise(ordered)]
    tight = 1 + gaps.index(max(gaps))
    return RedSplit(tuple(ordered[:tight]), tuple(ordered[tight:]))


def red(deadlines_ns: Sequence[int]) -> int:
    """Robust effective deadline of a batch, rounded down to a nanosecond.

    The deadlines are split into tight and loose (`red_split`). With f the tight share,
    `RED = f * min(tight) + (1 - f) * min(loose)`. If all deadlines are equal, or there is only one, RED is
    that deadline. Raises `ValueError` without deadlines.

    10, 12, 40: the gap 12..40 splits off 40, f = 2/3, RED = 2/3 * 10 + 1/3 * 40 = 20.
    """
    tight, loose = red_split(deadlines_ns)
    if not loose:
        return tight[0]
    return (len(tight) * tight[0] + len(loose) * loose[0]) // (len(tight) + len(loose))


def loose_deadline(deadlines_ns: Sequence[int]) -> int:
    """The earliest deadline of the loose group: overload control holds a batch to it.

    If all deadlines are equal, or there is only one, it is that deadline. Raises `ValueError` without
    deadlines. 10, 12, 40: 40. 10, 30, 40: 30.
    """
    tight, loose = red_split(deadlines_ns)
    return loose[0] if loose else tight[0]


def transfer_ns(size_bytes: int, bps: int) -> int:
    """Time to send `size_bytes` alone on a link, rounded up. 20 MB at 100 Gb/s: 1.6 ms."""
    return -(-size_bytes * 8 * NS_PER_S // bps)


def latest_finish_ns(deadline_ns: int, downstream_ns: int) -> int:
    """When the network must be done so that `downstream_ns` of other work still meets the deadline."""
    return deadline_ns - downstream_ns
