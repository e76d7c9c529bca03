"""Simulated annealing over schedules: change keys, simulate, keep what is better and sometimes what is not.

Pure: the simulation is a function that is given, and so is the source of random numbers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

from controller.flow import Stage
from experiments.clairvoyant.schedule import Item, Schedule
from experiments.results.requests import counted
from testbed.record import RequestRow

_LATENESS: Final = 0.3
_TTFT: Final = 0.02
_LATEST: Final = 2.0
_HOT, _COLD = 0.3, 0.005
"""The temperature falls from one to the other. A request that meets its SLO is worth 1."""

_STEP: Final = 1e-3
"""How far a key is put before or after another."""


class Outcome(NamedTuple):
    """What a schedule leads to: its score, and the requests of its run."""

    score: float
    requests: Sequence[RequestRow]


def score(rows: Sequence[RequestRow]) -> float:
    """Return the number of measured requests that meet their SLO, less how late the others are.

    A request that misses its SLO costs 0.3 per SLO that it is late, up to 0.6, and all cost 0.02 per SLO of
    TTFT. So a search sees which of two schedules is nearer to one more request, and prefers short TTFTs among
    schedules that are equal. Requests without a first token are as late as can be.
    """
    total = 0.0
    for row in counted(rows):
        slos = row.ttft_ns / row.slo_ns if row.ttft_ns is not None and row.slo_ns else math.inf
        slos = min(slos, 100.0)
        total += (slos <= 1) - _LATENESS * min(_LATEST, max(0.0, slos - 1)) - _TTFT * slos
    return total


def anneal(
    start: Schedule,
    evaluate: Callable[[Schedule], Outcome],
    *,
    random: Random,
    evaluations: int,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Schedule, Outcome, int]:
    """Return the best schedule that is found from `start` on, what it leads to, and how often it got better.

    `evaluate` is called `evaluations` times, at least once; `progress` is told how often it was.
    """
    items = list(start.keys)
    now, here = start, evaluate(start)
    best, found, better = now, here, 0
    for done in range(1, evaluations):
        progress(done)
        heat = _HOT * (_COLD / _HOT) ** (done / evaluations)
        tried = _changed(now, items, here.requests, random)
        outcome = evaluate(tried)
        gain = outcome.score - here.score
        if gain >= 0 or random.random() < math.exp(gain / heat):
            now, here = tried, outcome
        if outcome.score > found.score:
            best, found, better = tried, outcome, better + 1
    return best, found, better


def _changed(
    schedule: Schedule, items: Sequence[Item], rows: Sequence[RequestRow], random: Random
) -> Schedule:
    """Return `schedule` with other keys for some or all items of a request, most often one that is late."""
    mine = counted(rows)
    late = sorted(
        (row for row in mine if row.ttft_ns is None or row.ttft_ns > row.slo_ns),
        key=lambda row: math.inf if row.ttft_ns is None else row.ttft_ns / row.slo_ns,
    )
    if late and random.random() < 0.5:  # those that are least late first
        row = late[min(len(late) - 1, int(random.expovariate(0.3)))]
    else:
        row = random.choice(mine)
    group = [item for item in items if item.owner in _owners(row)[item.stage]]
    kind = random.random()
    if kind < 0.5:
        group = [random.choice(group)]
    elif kind < 0.8:
        stage = random.choice(group).stage
        group = [item for item in group if item.stage is stage]
    keys = dict(schedule.keys)
    if random.random() < 0.5:
        key = keys[random.choice(items)] + random.choice((-_STEP, 0.0, _STEP))
        keys.update(dict.fromkeys(group, key))
    else:
        shift = random.gauss(0, 0.7)
        keys.update({item: keys[item] + shift for item in group})
    return Schedule(keys, schedule.by_layer)


def _owners(row: RequestRow) -> Mapping[Stage, frozenset[str]]:
    request = frozenset([str(row.request)])
    batches = frozenset([*([row.batch] if row.batch else []), *row.earlier_batches])
    return {Stage.KV_REUSE: request, Stage.COLLECTIVE: batches, Stage.P2D: request}
