"""How many lanes lead from one rank to another, for each stage. The same on every fabric."""

import itertools
from collections import Counter
from collections.abc import Iterator

from controller.flow import Stage
from testbed.job import Job, Role
from testbed.serving.plans.resharding import pairs

Pair = tuple[Stage, int, int]
"""Stage, sending rank, receiving rank."""


class LaneCounts:
    """The number of lanes by stage and pair of ranks.

    - S1: `lanes_s1` from each prefill rank to each other one, because any of them may hold a prefix.
    - S3: `lanes_s3` from each prefill rank to each decode rank that has some of the same heads.
    - S2: with background decoding, one from each decode rank to each other one. A decode step sends one
      message per pair.
    - Background transfers: one for each pair, which sends one at a time.
    - Micro workload: as many lanes as the pair has flows of the stage, so that no flow waits for another.
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
            Stage.BACKGROUND: 1,
        }

    def of(self, stage: Stage, src: int, dst: int) -> int:
        """Return how many lanes carry flows of `stage` from rank `src` to rank `dst`."""
        return self._micro[stage, src, dst] if self._micro else self._by_stage[stage]

    def pairs(self) -> Iterator[Pair]:
        """Yield every stage and pair of ranks that may have flows."""
        if self._micro:
            yield from self._micro
            return
        placement = self._job.placement
        prefill = [rank.rank for rank in placement.ranks if rank.role is Role.PREFILL]
        for a in prefill:
            yield from ((Stage.KV_REUSE, a, b) for b in prefill if a != b)
            yield from ((Stage.P2D, a, d) for d in self._with_its_heads(a))
        if self._job.serving.decode_background:
            yield from ((Stage.COLLECTIVE, a, b) for a, b in itertools.permutations(placement.decode, 2))

        if self._job.background is not None:
            yield from ((Stage.BACKGROUND, src, dst) for src, dst in self._job.background.pairs)

    def _with_its_heads(self, rank: int) -> Iterator[int]:
        """The decode ranks that get some of their KV from prefill rank `rank`."""
        placement = self._job.placement
        spec = placement.ranks[rank]
        assert spec.unit is not None  # a prefill rank has one
        tp = placement.shapes[spec.unit].tp
        receivers = [dst for src, dst in pairs(tp, placement.decode_tp) if src == spec.index % tp]
        yield from (worker[place] for worker in placement.decode_workers for place in receivers)
