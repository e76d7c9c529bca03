"""Completion times of coflows on one switch, worked out apart from the code under test: smallest Gamma first.

Exact events and fluid rates. All ports send and receive at 1, so a size is the time that it takes alone.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_NOTHING = 1e-9


class Shuffles:
    """Flow i of coflow `coflow[i]` sends `size[i]` from port `src[i]` to port `dst[i]`; coflow c arrives at
    `arrival[c]`."""

    def __init__(self, flows: Sequence[tuple[int, int, int, float]], arrival: Sequence[float]) -> None:
        self.coflow, self.src, self.dst = (np.array([flow[k] for flow in flows]) for k in range(3))
        self.size = np.array([flow[3] for flow in flows], dtype=np.float64)
        self.arrival = np.array(arrival, dtype=np.float64)
        self.ports = int(max(self.src.max(), self.dst.max())) + 1


def smallest_bottleneck_first(shuffles: Shuffles, *, madd: bool) -> Floats:
    """Return the completion time of each coflow, from its arrival.

    The coflow with the smallest Gamma of what it has left goes first. All places are given anew when a coflow
    arrives or ends, and that of a coflow when one of its flows ends. Without `madd`, the flows of a coflow
    share fairly what the coflows before it leave. With it, as in Varys (Chowdhury, Zhong and Stoica, SIGCOMM
    2014): they get the least rates with which they end together, and then all flows share what is left over,
    coflow by coflow in the same order.
    """
    s = shuffles
    left, count = s.size.copy(), len(s.arrival)
    gamma, stale = np.zeros(count), set(range(count))
    ended = np.full(count, np.nan)
    now = 0.0
    while np.isnan(ended).any():
        here = [c for c in range(count) if s.arrival[c] <= now + _NOTHING and np.isnan(ended[c])]
        for c in stale.intersection(here):
            gamma[c] = _drain(s, left, s.coflow == c, np.ones((2, s.ports)))
        rates = _rates(s, left, sorted(here, key=lambda c: gamma[c]), madd)
        moving = rates > 0
        later = s.arrival[s.arrival > now + _NOTHING]
        until = min([*(now + left[moving] / rates[moving]), *later])
        before = left > 0
        left = np.maximum(left - rates * (until - now), 0.0)
        left[left < _NOTHING] = 0.0
        now = until
        stale = set(s.coflow[before & (left == 0)].tolist())
        over = [c for c in stale if not left[s.coflow == c].any()]
        ended[over] = now
        if over or now in later:
            stale = set(range(count))
    took: Floats = ended - s.arrival
    return took


def _drain(s: Shuffles, left: Floats, flows: npt.NDArray[np.bool_], free: Floats) -> float:
    """The time that the busiest port needs for what `flows` have left, with what is `free` of the ports."""
    load = np.stack([np.bincount(ends[flows], left[flows], minlength=s.ports) for ends in (s.src, s.dst)])
    used = load > 0
    return float((load[used] / free[used]).max()) if (free[used] > _NOTHING).all() else np.inf


def _rates(s: Shuffles, left: Floats, order: list[int], madd: bool) -> Floats:
    free = np.ones((2, s.ports))
    rates = np.zeros(len(left))
    for c in order:
        flows = (s.coflow == c) & (left > 0)
        if madd:
            need = _drain(s, left, flows, free)
            _give(s, rates, free, flows, left[flows] / need)
        else:
            _share(s, rates, free, flows)
    if madd:
        for c in order:
            _share(s, rates, free, (s.coflow == c) & (left > 0))
    return rates


def _share(s: Shuffles, rates: Floats, free: Floats, flows: npt.NDArray[np.bool_]) -> None:
    """Add what is free to the rates of `flows`, max-min fairly: alike, until a port of each is full."""
    filling = flows.copy()
    while True:
        filling &= (free[0][s.src] > _NOTHING) & (free[1][s.dst] > _NOTHING)
        if not filling.any():
            return
        many = np.stack([np.bincount(ends[filling], minlength=s.ports) for ends in (s.src, s.dst)])
        step = float((free[many > 0] / many[many > 0]).min())
        _give(s, rates, free, filling, np.full(int(filling.sum()), step))


def _give(s: Shuffles, rates: Floats, free: Floats, flows: npt.NDArray[np.bool_], more: Floats) -> None:
    rates[flows] += more
    np.subtract.at(free[0], s.src[flows], more)
    np.subtract.at(free[1], s.dst[flows], more)
