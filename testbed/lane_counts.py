"""How many lanes there are between two ranks, for each stage: the same on every fabric."""

import itertools
from collections import Counter
from collections.abc import Iterator

from controller.flow import Stage
from testbed.job import Job, Role

Pair = tuple[Stage, int, int]
"""Flows of a stage from one rank to another."""


class LaneCounts:
    """Lanes by pair of ranks and stage.

    S1: `lanes_s1` from any prefill rank to any other, whichever holds a prefix. S3: `lanes_s3` from any
    prefill rank to any decode rank. S2: one between any two decode ranks with background traffic, of which
    a step has one message per pair. Micro flows: per pair and stage as many as there are flows, so that
    none waits for another.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._micro = Counter(
            (flow.transfer.stage, flow.transfer.src, flow.transfer.dst) for flow in job.flows
        )
        self._by_stage = {
            Stage.KV_REUSE: job.workers.lanes_s1,
            Stage.COLLECTIVE: 1,
            Stage.P2D: job.workers.lanes_s3,
        }

    def of(self, stage: Stage, src: int, dst: int) -> int:
        """The lanes for flows of `stage` from rank `src` to rank `dst`."""
        return self._micro[stage, src, dst] if self._micro else self._by_stage[stage]

    def pairs(self) -> Iterator[Pair]:
        """Every pair that may talk."""
        if self._micro:
            yield from self._micro
            return
        placement = self._job.placement
        prefill = [rank.rank for rank in placement.ranks if rank.role is Role.PREFILL]
        for a in prefill:
            yield from ((Stage.KV_REUSE, a, b) for b in prefill if a != b)
            yield from ((Stage.P2D, a, d) for d in placement.decode)
        if self._job.serving.decode_background:
            yield from ((Stage.COLLECTIVE, a, b) for a, b in itertools.permutations(placement.decode, 2))
