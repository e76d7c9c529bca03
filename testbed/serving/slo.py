"""Service level objectives (SLOs): the unloaded TTFT of a request, and the TTFT it is promised.

An SLO must not depend on the policy under test. So it rests on an idle cluster and on the reuse that the
workload itself offers, not on what a run happened to have in its caches.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec

from controller.units import NS_PER_S
from testbed.job import Placement, Request
from testbed.models.gpus import GpuSpeed
from testbed.models.mixers import kept_bytes, mixers, state_bytes
from testbed.models.shape import Mixer, ModelShape
from testbed.placement import stage_shards
from testbed.serving.cache.assignment import cacheable_blocks, reusable_blocks
from testbed.serving.plans.build import decode_step_s, kv_shards, state_shards
from testbed.serving.plans.idle_network import Traffic, drain_s, layer_s, merged, scaled, step_traffic
from testbed.serving.plans.steps import PLAIN, ReplicaWork, StepOptions, unit_steps, work_of
from testbed.topology import Topology

DEFAULT_CLASS = "default"


class SloTarget(msgspec.Struct, frozen=True, kw_only=True):
    """The TTFT promised to a class: a multiple of the unloaded TTFT, or absolute seconds.

    Raises `ValueError` unless exactly one of the two is given and it is positive.
    """

    multiple: float | None = None
    absolute_s: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.multiple, self.absolute_s) if value is not None]
        if len(given) != 1:
            raise ValueError("an SLO needs exactly one of multiple and absolute_s")
        if given[0] <= 0:
            raise ValueError(f"an SLO must be positive, not {given[0]}")

    def slo_ns(self, unloaded_ns: int) -> int:
        """The SLO, in ns, of a request whose unloaded TTFT is `unloaded_ns`."""
        if self.multiple is not None:
            return round(self.multiple * unloaded_ns)
        return round((self.absolute_s or 0.0) * NS_PER_S)


def ideal_reuse_tokens(requests: Sequence[Request]) -> dict[int, int]:
    """For each request id, the tokens of the longest block prefix that an earlier request has too.

    A cache without a limit, filled the moment a request arrives, would let it reuse these. They depend on
    the workload alone, so every policy, router and cache size is held to the same promise.
    """
    seen: set[int] = set()
    reuse: dict[int, int] = {}
    for request in sorted(requests, key=lambda r: (r.arrival_ns, r.id)):
        matched = 0
        for block in reusable_blocks(request):
            if block not in seen:
                break
            matched += 1
        reuse[request.id] = matched * request.block_tokens
        seen.update(cacheable_blocks(request))
    return reuse


@dataclass(frozen=True, kw_only=True)
class IdleCluster:
    """An idle cluster, and where a request that is alone on it runs: what all requests have in common.

    It runs on the first replica of the first unit. Its reused KV comes from another unit (else from another
    replica; else it is local). Its decode worker is on another server, if there is one. So S1 and S3 cross
    the network, as they mostly do.
    """

    placement: Placement
    model: ModelShape
    gpu: GpuSpeed
    topology: Topology
    options: StepOptions = PLAIN

    def unloaded_ttft_ns(self, prompt_tokens: int, reused_tokens: int) -> int:
        """TTFT, in ns, of a request that is alone on the cluster and fetches all KV that it reuses.

        Let c_l be the time of the compute and collectives of layer l, and s1_l and s3_l the ideal times of
        its transfers. With all times before layer 0 at 0,

            S1 of layer l has arrived at   a_l = s1_f + ... + s1_l       (posted at once, in order)
            layer l has ended at           t_l = max(t_{l-1}, a_l) + c_l
            S3 of layer l has arrived at   d_l = max(d_{l-1}, t_l) + s3_l
            TTFT = max(d_last, b) + decode step

        where f is the first layer of the pipeline stage of layer l, whose ranks have an S1 of their own, and
        b the time that the busiest port needs for S1, S2 and S3 of the request together.
        """
        placement, model, gpu = self.placement, self.model, self.gpu
        unit, replicas = self._home
        new_tokens = prompt_tokens - reused_tokens
        work = [
            work_of(model, [(new_tokens, reused_tokens)]),
            *[ReplicaWork(new_tokens=0)] * (len(replicas) - 1),
        ]
        alike = unit_steps(work, unit=unit, placement=placement, model=model, gpu=gpu, options=self.options)
        step_s: dict[int, float] = {}
        kind_of: dict[int, tuple[int, int]] = {}
        for each in alike:
            step_s |= dict.fromkeys(each.layers, layer_s(each.steps, placement, self.topology))
            kind_of |= dict.fromkeys(each.layers, each.kind)
        of_kind = mixers(model)
        kinds = set(kind_of.values())
        reuse = {(s, m): self._reuse_traffic(reused_tokens, s, of_kind[m]) for s, m in kinds}
        delivery = {(s, m): self._delivery_traffic(prompt_tokens, s, of_kind[m]) for s, m in kinds}
        s1_s = {kind: drain_s(traffic, self.topology) for kind, traffic in reuse.items()}
        s3_s = {kind: drain_s(traffic, self.topology) for kind, traffic in delivery.items()}

        through_s = arrived_s = 0.0
        begun: Counter[tuple[int, int]] = Counter()  # layers of each kind so far, this one included
        for layer in range(model.layers):
            kind = kind_of[layer]
            begun[kind] += 1
            fetched_s = sum(count * s1_s[each] for each, count in begun.items() if each[0] == kind[0])
            through_s = max(through_s, fetched_s) + step_s[layer]
            arrived_s = max(arrived_s, through_s) + s3_s[kind]
        whole = merged(
            scaled(
                merged((reuse[each.kind], step_traffic(each.steps, placement), delivery[each.kind])),
                len(each.layers),
            )
            for each in alike
        )
        busiest_s = drain_s(whole, self.topology)
        ttft_s = max(arrived_s, busiest_s) + decode_step_s(model, gpu, prompt_tokens)
        return round(ttft_s * NS_PER_S)

    def _reuse_traffic(self, reused_tokens: int, stage: int, mixer: Mixer) -> Traffic:
        """S1 of one layer of a pipeline stage that has `mixer`."""
        if self._source is None or not reused_tokens:
            return {}
        placement, (unit, _) = self.placement, self._home
        sizes = self._shards(reused_tokens, mixer)
        sources = stage_shards(placement, *self._source, stage)
        home = stage_shards(placement, unit, 0, stage)
        return merged(
            {(placement.node_of(src), placement.node_of(dst)): float(size)}
            for src, dst, size in zip(sources, home, sizes, strict=bool(sizes))
        )

    def _delivery_traffic(self, prompt_tokens: int, stage: int, mixer: Mixer) -> Traffic:
        """S3 of one layer of a pipeline stage that has `mixer`."""
        placement, (unit, _) = self.placement, self._home
        sizes = self._shards(prompt_tokens, mixer)
        sources = stage_shards(placement, unit, 0, stage)
        decode = placement.node_of(self._decode)
        return merged(
            {(placement.node_of(src), decode): float(size)}
            for src, size in zip(sources, sizes, strict=bool(sizes))
        )

    def _shards(self, tokens: int, mixer: Mixer) -> tuple[int, ...]:
        """Bytes of a layer's KV of `tokens`, or of its state, that each rank transfers; empty: neither."""
        if kept_bytes(self.model, mixer):
            return kv_shards(tokens, self.placement, self.model, mixer)
        return state_shards(self.placement, mixer) if state_bytes(mixer) else ()

    @cached_property
    def _home(self) -> tuple[str, tuple[tuple[int, ...], ...]]:
        """The unit on whose first replica the request runs, and the replicas of the unit."""
        return next(iter(self.placement.replicas.items()))

    @cached_property
    def _source(self) -> tuple[str, int] | None:
        """The unit and number of the replica that reused KV comes from, of another unit if there is one."""
        placement, (home_unit, replicas) = self.placement, self._home
        others = [
            (unit, i) for unit, of in placement.replicas.items() if unit != home_unit for i in range(len(of))
        ]
        others = others or [(home_unit, i) for i in range(1, len(replicas))]
        if not others:
            return None
        return others[self._off_server([placement.replicas[unit][i] for unit, i in others])]

    @cached_property
    def _decode(self) -> int:
        """The decode worker."""
        ranks = self.placement.decode
        return ranks[self._off_server([(rank,) for rank in ranks])]

    def _off_server(self, candidates: Sequence[Sequence[int]]) -> int:
        """The index of the candidate with the fewest ranks on servers of the request; the first wins ties."""
        placement, (_, replicas) = self.placement, self._home
        near = {placement.server_of(rank) for rank in replicas[0]}
        return min(
            range(len(candidates)),
            key=lambda i: (sum(placement.server_of(rank) in near for rank in candidates[i]), i),
        )


def with_slos(
    requests: Sequence[Request],
    *,
    targets: Mapping[str, SloTarget],
    placement: Placement,
    model: ModelShape,
    gpu: GpuSpeed,
    topology: Topology,
    options: StepOptions = PLAIN,
) -> list[Request]:
    """Return the same requests, in the same order, with `unloaded_ns` and `slo_ns` set.

    `targets` maps SLO classes to their promise. The promise of `"default"` also holds for classes that
    `targets` lacks. The reuse is `ideal_reuse_tokens`. Raises `ValueError` without a default.
    """
    if DEFAULT_CLASS not in targets:
        raise ValueError(f"the SLO classes lack {DEFAULT_CLASS!r}: {sorted(targets)}")
    reuse = ideal_reuse_tokens(requests)
    cluster = IdleCluster(placement=placement, model=model, gpu=gpu, topology=topology, options=options)
    # Many requests of a trace have the same shape, and the steps of a large unit take long to work out.
    unloaded: dict[tuple[int, int], int] = {}
    promised: list[Request] = []
    for request in requests:
        shape = (request.prompt_tokens, reuse[request.id])
        if shape not in unloaded:
            unloaded[shape] = cluster.unloaded_ttft_ns(*shape)
        target = targets.get(request.slo_class, targets[DEFAULT_CLASS])
        promised.append(
            msgspec.structs.replace(
                request, unloaded_ns=unloaded[shape], slo_ns=target.slo_ns(unloaded[shape])
            )
        )
    return promised
