"""Service level objectives (SLOs): the unloaded TTFT of a request, and the TTFT it is promised.

An SLO must not depend on the policy under test. So it rests on an idle cluster and on the reuse that the
workload itself offers, not on what a run happened to have in its caches.
"""

import enum
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import msgspec

from controller.flow import Stage
from controller.units import NS_PER_S
from testbed.job import Placement, Request
from testbed.models.gpus import GpuSpeed
from testbed.models.mixers import kept_bytes, mixer_numbers, mixers, state_bytes
from testbed.models.shape import ModelShape
from testbed.placement import kinds_of_units, layers_of, stage_of, stage_shards
from testbed.serving.cache.assignment import cacheable_blocks, reusable_blocks
from testbed.serving.plans.build import decode_step_s
from testbed.serving.plans.idle_network import Traffic, drain_s, layer_s, merged, scaled, step_traffic
from testbed.serving.plans.kv_moves import delivered, fetched, state_pieces
from testbed.serving.plans.resharding import Piece
from testbed.serving.plans.steps import (
    PLAIN,
    AlikeLayers,
    ReplicaWork,
    StepOptions,
    side_by_side,
    slowest_compute_s,
    unit_steps,
    work_of,
)
from testbed.topology import Topology

DEFAULT_CLASS = "default"


class Reference(enum.StrEnum):
    """Of which unloaded TTFT a relative SLO is a multiple."""

    REQUEST = "request"  # that of the request itself
    MEAN = "mean"  # the mean over all requests of the workload


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

    def slo_ns(self, reference_ns: float) -> int:
        """The SLO in ns. A multiple is one of `reference_ns`."""
        if self.multiple is not None:
            return round(self.multiple * reference_ns)
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
    """An idle cluster: what all requests that are alone on it have in common."""

    placement: Placement
    model: ModelShape
    gpu: GpuSpeed
    topology: Topology
    options: StepOptions = PLAIN

    def unloaded_ttft_ns(self, prompt_tokens: int, reused_tokens: int) -> int:
        """TTFT, in ns, of a request that is alone on the cluster and fetches all KV that it reuses.

        If units differ, it is that on the kind of unit where it is lowest.
        """
        return min(home.ttft_ns(prompt_tokens, reused_tokens) for home in self._homes)

    def layer_times(self, prompt_tokens: int, reused_tokens: int) -> "LayerTimes":
        """What a layer of such a request takes here, on the kind of unit where its TTFT is lowest."""
        home = min(self._homes, key=lambda home: home.ttft_ns(prompt_tokens, reused_tokens))
        return home.layer_times(prompt_tokens, reused_tokens)

    @cached_property
    def _homes(self) -> "tuple[_Home, ...]":
        return tuple(_Home(self, unit) for unit in kinds_of_units(self.placement, self.topology))


class LayerTimes(NamedTuple):
    """Seconds of one layer of a request that is alone. Of several kinds of layers, the most common one.

    `compute_s` and `whole_s` are its compute, and that with its collectives. `transfers_s` has the times of
    its transfers at line rate: S1 and S3 of the layer, and its shortest collective. What crosses no network
    is missing.
    """

    compute_s: float
    whole_s: float
    transfers_s: dict[Stage, float]


class _Home:
    """Where a request runs that is alone on a cluster: the first replica of `unit`.

    Its reused KV comes from another unit (else from another replica; else it is local). Its decode worker
    is on other servers, if there is such a worker. So S1 and S3 cross the network, as they mostly do.
    """

    def __init__(self, cluster: IdleCluster, unit: str) -> None:
        self._cluster = cluster
        self._unit = unit
        self._placement = cluster.placement
        self._shape = cluster.placement.shapes[unit]
        self._replicas = cluster.placement.replicas[unit]
        self._source = self._nearest_source()
        workers = cluster.placement.decode_workers
        self._decode = workers[self._off_server(workers)]

    def ttft_ns(self, prompt_tokens: int, reused_tokens: int) -> int:
        """TTFT, in ns, of a request here.

        Let c_l be the time of the compute and collectives of layer l, and s1_l and s3_l the ideal times of
        its transfers. With all times before layer 0 at 0,

            S1 of layer l has arrived at   a_l = s1_f + ... + s1_l       (posted at once, in order)
            layer l has ended at           t_l = max(t_{l-1}, a_l) + c_l
            S3 of layer l has arrived at   d_l = max(d_{l-1}, t_l) + s3_l
            TTFT = max(d_last, b) + decode step

        where f is the first layer of the pipeline stage of layer l, whose ranks have an S1 of their own, and
        b the time that the busiest port needs for S1, S2 and S3 of the request together. The latency of the
        network adds to each a_l and to d_last, and is in c for each round of a collective.
        """
        cluster, shape, placement = self._cluster, self._shape, self._placement
        model, gpu, topology = cluster.model, cluster.gpu, cluster.topology
        alike = self._steps(prompt_tokens, reused_tokens)
        step_s: dict[int, float] = {}
        for each in alike:
            step_s |= dict.fromkeys(each.layers, layer_s(each.steps, placement, topology))
        ways = self._ways
        reuse = {way: self._reuse_traffic(reused_tokens, way) for way in dict.fromkeys(ways)}
        kinds = dict.fromkeys(each.kind for each in alike)
        delivery = {kind: self._delivery_traffic(prompt_tokens, *kind) for kind in kinds}
        s1_s = {way: drain_s(traffic, topology) for way, traffic in reuse.items()}
        s1_latency_s = max(map(topology.latency_s, reuse.values()))
        s3_s = {kind: drain_s(traffic, topology) for kind, traffic in delivery.items()}

        through_s = arrived_s = 0.0
        come: Counter[_Way] = Counter()
        for layer, way in enumerate(ways):
            if layer == layers_of(way.home, model.layers, shape.pp)[0]:
                come.clear()
            come[way] += 1
            fetched_s = sum(count * s1_s[each] for each, count in come.items())
            if any(reuse[each] for each in come):
                fetched_s += s1_latency_s
            through_s = max(through_s, fetched_s) + step_s[layer]
            arrived_s = max(arrived_s, through_s) + s3_s[way.home, way.mixer]
        whole = merged(
            merged(
                (
                    *(
                        scaled(reuse[way], count)
                        for way, count in Counter(ways[layer] for layer in each.layers).items()
                    ),
                    scaled(step_traffic(each.steps, placement), len(each.layers)),
                    scaled(delivery[each.kind], len(each.layers)),
                )
            )
            for each in alike
        )
        busiest_s = drain_s(whole, topology)
        arrived_s += max(map(topology.latency_s, delivery.values()))
        ttft_s = max(arrived_s, busiest_s) + decode_step_s(model, gpu, prompt_tokens, placement.decode_tp)
        return round(ttft_s * NS_PER_S)

    def layer_times(self, prompt_tokens: int, reused_tokens: int) -> LayerTimes:
        placement, topology = self._placement, self._cluster.topology
        most = max(self._steps(prompt_tokens, reused_tokens), key=lambda alike: len(alike.layers))
        at_once = (step_traffic(together, placement) for together in side_by_side(most.steps))
        collectives_s = (drain_s(traffic, topology) for traffic in at_once)
        times = {
            Stage.KV_REUSE: drain_s(self._reuse_traffic(reused_tokens, self._ways[most.layers[0]]), topology),
            Stage.COLLECTIVE: min(filter(None, collectives_s), default=0.0),
            Stage.P2D: drain_s(self._delivery_traffic(prompt_tokens, *most.kind), topology),
        }
        return LayerTimes(
            compute_s=slowest_compute_s(most.steps),
            whole_s=layer_s(most.steps, placement, topology),
            transfers_s={stage: seconds for stage, seconds in times.items() if seconds},
        )

    def _steps(self, prompt_tokens: int, reused_tokens: int) -> tuple[AlikeLayers, ...]:
        """The steps of all layers, if the first replica has the request and the others have nothing."""
        cluster = self._cluster
        alone = work_of(cluster.model, [(prompt_tokens - reused_tokens, reused_tokens)])
        idle = ReplicaWork(new_tokens=0)
        return unit_steps(
            [alone, *[idle] * (len(self._replicas) - 1)],
            unit=self._unit,
            placement=self._placement,
            model=cluster.model,
            gpu=cluster.gpu,
            options=cluster.options,
        )

    @cached_property
    def _ways(self) -> Sequence["_Way"]:
        """That of each layer."""
        return [self._way(layer) for layer in range(self._cluster.model.layers)]

    def _way(self, layer: int) -> "_Way":
        """Between which pipeline stages the S1 of a layer goes, and what it has."""
        layers = self._cluster.model.layers
        mixer = mixer_numbers(self._cluster.model)[layer]
        home = stage_of(layer, layers, self._shape.pp)
        if self._source is None:
            return _Way(home, home, mixer)
        return _Way(home, stage_of(layer, layers, self._placement.shapes[self._source[0]].pp), mixer)

    def _reuse_traffic(self, reused_tokens: int, way: "_Way") -> Traffic:
        """S1 of one layer."""
        if self._source is None or not reused_tokens:
            return {}
        unit, replica = self._source
        model, there, here = self._cluster.model, self._placement.shapes[unit], self._shape
        mixer = mixers(model)[way.mixer]
        if kept_bytes(model, mixer):
            pieces = fetched(reused_tokens, there, here, model, mixer)
        else:
            pieces = state_pieces(there.tp, here.tp, mixer) if state_bytes(mixer) else ()
        sources = stage_shards(self._placement, unit, replica, way.source)
        home = stage_shards(self._placement, self._unit, 0, way.home)
        return self._traffic(sources, home, pieces)

    def _delivery_traffic(self, prompt_tokens: int, stage: int, number: int) -> Traffic:
        """S3 of one layer of a pipeline stage that has the mixer of that number."""
        model, shape, decode_tp = self._cluster.model, self._shape, self._placement.decode_tp
        mixer = mixers(model)[number]
        if kept_bytes(model, mixer):
            pieces = delivered(prompt_tokens, shape, decode_tp, model, mixer)
        else:
            pieces = state_pieces(shape.tp, decode_tp, mixer) if state_bytes(mixer) else ()
        return self._traffic(stage_shards(self._placement, self._unit, 0, stage), self._decode, pieces)

    def _traffic(self, senders: Sequence[int], receivers: Sequence[int], pieces: Iterable[Piece]) -> Traffic:
        node_of = self._placement.node_of
        return merged(
            {(node_of(senders[piece.src]), node_of(receivers[piece.dst])): float(piece.size)}
            for piece in pieces
        )

    def _nearest_source(self) -> tuple[str, int] | None:
        """The unit and number of the replica that reused KV comes from, of another unit if there is one."""
        of_units = self._placement.replicas
        others = [(unit, i) for unit, of in of_units.items() if unit != self._unit for i in range(len(of))]
        others = others or [(self._unit, i) for i in range(1, len(self._replicas))]
        if not others:
            return None
        return others[self._off_server([of_units[unit][i] for unit, i in others])]

    def _off_server(self, candidates: Sequence[Sequence[int]]) -> int:
        """The index of the candidate with the fewest ranks on servers of the request; the first wins ties."""
        server_of = self._placement.server_of
        near = {server_of(rank) for rank in self._replicas[0]}
        return min(
            range(len(candidates)),
            key=lambda i: (sum(server_of(rank) in near for rank in candidates[i]), i),
        )


class _Way(NamedTuple):
    """The pipeline stages between which the S1 of a layer goes: here, and in the unit of its source.

    `mixer` is which of the model's `mixers` the layer has.
    """

    home: int
    source: int
    mixer: int


def with_slos(
    requests: Sequence[Request],
    *,
    targets: Mapping[str, SloTarget],
    placement: Placement,
    model: ModelShape,
    gpu: GpuSpeed,
    topology: Topology,
    options: StepOptions = PLAIN,
    reference: Reference = Reference.REQUEST,
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
    alone: list[int] = []
    for request in requests:
        shape = (request.prompt_tokens, reuse[request.id])
        if shape not in unloaded:
            unloaded[shape] = cluster.unloaded_ttft_ns(*shape)
        alone.append(unloaded[shape])
    bases: Sequence[float] = alone
    if reference is Reference.MEAN and alone:
        bases = [statistics.fmean(alone)] * len(alone)
    promised: list[Request] = []
    for request, unloaded_ns, base_ns in zip(requests, alone, bases, strict=True):
        target = targets.get(request.slo_class, targets[DEFAULT_CLASS])
        slo_ns = target.slo_ns(base_ns)
        promised.append(msgspec.structs.replace(request, unloaded_ns=unloaded_ns, slo_ns=slo_ns))
    return promised
