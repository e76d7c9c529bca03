"""Service level objectives (SLOs): the unloaded TTFT of a request, and the TTFT it is promised.

An SLO must not depend on the policy under test. So it rests on an idle cluster and on the reuse that the
workload itself offers, not on what a run happened to have in its caches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec

from controller.units import NS_PER_S
from testbed.job import Placement, Request
from testbed.models.gpus import GpuSpeed
from testbed.models.shape import ModelShape
from testbed.models.sizes import score_flops
from testbed.placement import layers_of, stage_of, stage_shards
from testbed.serving.cache.assignment import cacheable_blocks, reusable_blocks
from testbed.serving.plans.build import decode_step_s, delivered, kv_shards
from testbed.serving.plans.idle_network import Traffic, drain_s, layer_s, merged, scaled, step_traffic
from testbed.serving.plans.steps import PLAIN, ReplicaWork, StepOptions, unit_steps
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
    replica; else it is local). Its decode worker is on other servers, if there is such a worker. So S1 and S3
    cross the network, as they mostly do.
    """

    placement: Placement
    model: ModelShape
    gpu: GpuSpeed
    topology: Topology
    options: StepOptions = PLAIN

    def unloaded_ttft_ns(self, prompt_tokens: int, reused_tokens: int) -> int:
        """TTFT, in ns, of a request that is alone on the cluster and fetches all KV that it reuses.

        Let c be the time of a layer's compute and collectives, and s1 and s3 the ideal transfer times of a
        layer. With all times before layer 0 at 0,

            S1 of layer l has arrived at   a_l = (l - f + 1) s1          (posted at once, in order)
            layer l has ended at           t_l = max(t_{l-1}, a_l) + c
            S3 of layer l has arrived at   d_l = max(d_{l-1}, t_l) + s3
            TTFT = max(d_last, b) + decode step

        where f is the first layer of the pipeline stage of layer l, whose ranks have an S1 of their own, and
        b the time that the busiest port needs for S1, S2 and S3 of the request together.
        """
        placement, model, gpu = self.placement, self.model, self.gpu
        unit, replicas = self._home
        new_tokens = prompt_tokens - reused_tokens
        alone = ReplicaWork(
            new_tokens=new_tokens,
            score_flops=score_flops(model, new_tokens=new_tokens, prefix_tokens=reused_tokens),
            cached_tokens=reused_tokens,
        )
        idle = ReplicaWork(new_tokens=0, score_flops=0)
        work = [alone, *[idle] * (len(replicas) - 1)]
        alike = unit_steps(work, unit=unit, placement=placement, model=model, gpu=gpu, options=self.options)
        step_s: dict[int, float] = {}
        for each in alike:
            step_s |= dict.fromkeys(each.layers, layer_s(each.steps, placement, self.topology))
        stages = range(placement.pp)
        reuse = [self._reuse_traffic(reused_tokens, stage) for stage in stages]
        delivery = [self._delivery_traffic(prompt_tokens, stage) for stage in stages]
        s1_s = [drain_s(traffic, self.topology) for traffic in reuse]
        s3_s = [drain_s(traffic, self.topology) for traffic in delivery]

        through_s = arrived_s = 0.0
        for layer in range(model.layers):
            stage = stage_of(layer, model.layers, placement.pp)
            first = layers_of(stage, model.layers, placement.pp)[0]
            through_s = max(through_s, (layer - first + 1) * s1_s[stage]) + step_s[layer]
            arrived_s = max(arrived_s, through_s) + s3_s[stage]
        whole = merged(
            scaled(
                merged((reuse[each.stage], step_traffic(each.steps, placement), delivery[each.stage])),
                len(each.layers),
            )
            for each in alike
        )
        busiest_s = drain_s(whole, self.topology)
        ttft_s = max(arrived_s, busiest_s) + decode_step_s(model, gpu, prompt_tokens, placement.decode_tp)
        return round(ttft_s * NS_PER_S)

    def _reuse_traffic(self, reused_tokens: int, stage: int) -> Traffic:
        """S1 of one layer of a pipeline stage."""
        if self._source is None or not reused_tokens:
            return {}
        placement, (unit, _) = self.placement, self._home
        sizes = kv_shards(reused_tokens, placement, self.model)
        sources = stage_shards(placement, *self._source, stage)
        home = stage_shards(placement, unit, 0, stage)
        return merged(
            {(placement.node_of(src), placement.node_of(dst)): float(size)}
            for src, dst, size in zip(sources, home, sizes, strict=True)
        )

    def _delivery_traffic(self, prompt_tokens: int, stage: int) -> Traffic:
        """S3 of one layer of a pipeline stage."""
        placement, (unit, _) = self.placement, self._home
        sources = stage_shards(placement, unit, 0, stage)
        return merged(
            {
                (placement.node_of(sources[piece.src]), placement.node_of(self._decode[piece.dst])): float(
                    piece.size
                )
            }
            for piece in delivered(prompt_tokens, placement, self.model)
        )

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
    def _decode(self) -> tuple[int, ...]:
        """The ranks of the decode worker."""
        workers = self.placement.decode_workers
        return workers[self._off_server(workers)]

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
