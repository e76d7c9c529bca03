"""What the ranks of one pipeline stage have to do in a layer: their share of the tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec

from testbed.job import Placement
from testbed.models.gpus import GpuSpeed, step_s
from testbed.models.mixers import (
    attended_bytes,
    mixer_numbers,
    mixer_of,
    mixer_score_flops,
    mixers,
    prefix_bytes,
    share_bytes,
)
from testbed.models.shape import ModelShape
from testbed.placement import GroupKind, group_name, stage_ranks
from workers.plan import CollectiveKind, Compute
from workers.rounds import split


class ReplicaWork(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica computes per layer: new tokens, with `cached_tokens` before them.

    Layers differ in what they compute and read for these: `score_flops[i]` are the FLOPs of attention scores
    in a layer with mixer i of the model (`testbed.models.mixers.mixers`), and `read_bytes[i]` the bytes of
    cached KV, over all heads, or of states that such a layer reads. Empty: none.
    """

    new_tokens: int
    score_flops: tuple[int, ...] = ()
    cached_tokens: int = 0
    read_bytes: tuple[int, ...] = ()

    def scores(self, model: ModelShape, layer: int) -> int:
        """FLOPs of attention scores in `layer`."""
        return self.score_flops[mixer_numbers(model)[layer]] if self.score_flops else 0

    def reads(self, model: ModelShape, layer: int) -> int:
        """Bytes of cached KV or of states that `layer` reads."""
        return self.read_bytes[mixer_numbers(model)[layer]] if self.read_bytes else 0


def work_of(model: ModelShape, requests: Sequence[tuple[int, int]]) -> ReplicaWork:
    """The work of one replica for `requests`, each with its new tokens and the cached ones before them.

    New tokens read the cached tokens that their windows reach. A layer with a state reads one for each
    request that goes on after a prefix.
    """
    kinds = mixers(model)
    return ReplicaWork(
        new_tokens=sum(new for new, _ in requests),
        cached_tokens=sum(cached for _, cached in requests),
        score_flops=tuple(
            sum(mixer_score_flops(mixer, new_tokens=new, prefix_tokens=cached) for new, cached in requests)
            for mixer in kinds
        ),
        read_bytes=tuple(
            sum(prefix_bytes(model, mixer, cached) for new, cached in requests if new) for mixer in kinds
        ),
    )


class StepOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the ranks of a unit work together. `testbed.job.ServingOptions` describes the fields.

    The popularity of experts is drawn with `seed`.
    """

    all_reduce: CollectiveKind = CollectiveKind.ALL_REDUCE
    sequence: CollectiveKind = CollectiveKind.RING_ATTENTION
    expert_skew: float = 0.0
    seed: int = 0


PLAIN = StepOptions()
"""Rings, and experts that are all equally popular."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a step needs from a rank: FLOPs, and bytes of weights and KV to read."""

    flops: float
    read_bytes: float


NOTHING = Need(flops=0.0, read_bytes=0.0)


@dataclass(frozen=True, kw_only=True)
class StageWork:
    """Pipeline stage `stage` of `unit`, and the work of each replica. Ranks are counted within the stage.

    The tokens of a replica are dealt out to the parts of its sequence in turn (Brandon et al., "Striped
    Attention", 2023). So every part has equally many tokens and an equal share of causal attention.
    """

    unit: str
    stage: int
    replicas: Sequence[ReplicaWork]
    placement: Placement
    model: ModelShape
    gpu: GpuSpeed

    @property
    def tp(self) -> int:
        return self.placement.shapes[self.unit].tp

    @property
    def sp(self) -> int:
        return self.placement.shapes[self.unit].sp

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        return stage_ranks(self.placement, self.unit, self.stage)

    @cached_property
    def new_tokens(self) -> list[int]:
        """New tokens in the sequence part of each rank."""
        return self._by_rank([work.new_tokens for work in self.replicas])

    @cached_property
    def cached_tokens(self) -> list[int]:
        """Cached tokens, whose KV is read, in the sequence part of each rank."""
        return self._by_rank([work.cached_tokens for work in self.replicas])

    def tp_group(self, number: int) -> str:
        """The name of the stage's `number`-th tensor-parallel group."""
        return self._group(GroupKind.TENSOR, self.tp, number)

    def sp_group(self, number: int) -> str:
        """The name of the stage's `number`-th sequence-parallel group."""
        return self._group(GroupKind.SEQUENCE, self.sp, number)

    def _group(self, kind: GroupKind, members: int, number: int) -> str:
        return group_name(self.unit, kind, self.stage * (len(self.ranks) // members) + number)

    def compute(self, label: str, needs: Sequence[Need]) -> Compute:
        """A compute step with the `needs` of this stage's ranks. Other ranks of the unit do nothing."""
        before = self.stage * len(self.ranks)
        after = len(self.placement.units[self.unit]) - before - len(self.ranks)
        everybody = [*[NOTHING] * before, *needs, *[NOTHING] * after]
        return Compute(
            label=label,
            seconds=tuple(map(self.seconds, everybody)),
            flops=tuple(need.flops for need in everybody),
        )

    def seconds(self, need: Need) -> float:
        return step_s(self.gpu, flops=need.flops, read_bytes=need.read_bytes)

    def kv_bytes(self, layer: int, tokens: int, ways: int) -> int:
        """Bytes of the KV of `tokens` that a rank works with in `layer`, if the heads are divided by `ways`.

        A rank has at least one head: if there are more ranks than KV heads, they have copies. Every rank
        has the whole latent of MLA.
        """
        mixer = mixer_of(self.model, layer)
        return share_bytes(mixer, tokens * attended_bytes(self.model, mixer), ways)

    def read_bytes(self, layer: int, work: ReplicaWork, ways: int) -> int:
        """Bytes of cached KV or of states that a rank reads in `layer` for `work`, divided as `kv_bytes`."""
        return share_bytes(mixer_of(self.model, layer), work.reads(self.model, layer), ways)

    def _by_rank(self, tokens: Sequence[int]) -> list[int]:
        return [part for of_replica in tokens for part in split(of_replica, self.sp) for _ in range(self.tp)]
