"""What a request takes of a cluster, and how many per second the cluster can be expected to sustain."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from math import gcd
from typing import NamedTuple

import msgspec

from controller.flow import PortId, Stage
from testbed.job import Job, Placement, Request
from testbed.models.gpus import GpuSpeed, compute_s
from testbed.models.mixers import copies, kept_bytes, mixer_of, mixer_score_flops, mixers, state_bytes
from testbed.models.shape import ModelShape
from testbed.placement import kinds_of_units, layers_of, stage_ranks, stage_shards
from testbed.serving.decoding import batch_step_s
from testbed.serving.plans.idle_network import layer_s, merged, port_loads, port_seconds, scaled, step_traffic
from testbed.serving.plans.kv_moves import ways
from testbed.serving.plans.steps import (
    PLAIN,
    AlikeLayers,
    ReplicaWork,
    StepOptions,
    slowest_stage,
    unit_steps,
)
from testbed.serving.slo import ideal_reuse_tokens
from testbed.topology import Topology


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What the mean request of a workload takes, in seconds of what the cluster has.

    - `units_s`: of all prefill units together, in full, evenly spread batches: compute plus collectives at
      line rate, without overlap or waiting. In a pipeline, the slowest stage counts, because the others
      work on other batches meanwhile. Units of the same size and with the same NICs count as the first of
      them.
    - `port_s`: of `port`, the busiest one. Units serve requests in proportion to their prefill rates. The
      bytes of S1, S2 and S3 are spread evenly over the ranks of a kind of unit that send and receive them.
      Reused KV is on a replica as often as requests are served there. `port` is None if nothing is sent.
    - `ports`: those that each stage crosses, in any of its paths.

    This is the least it can take: prompts reuse all that they share with earlier ones.
    """

    units_s: float
    port: PortId | None
    port_s: float
    ports: Mapping[Stage, frozenset[PortId]]

    @property
    def capacity_rps(self) -> float:
        """Requests/s that the cluster can sustain: what units or ports allow, whichever is less.

        This is what full, even batches could do. Uneven batches, waiting and contention can cost most of it;
        `experiments.resolve.capacity` measures how much.
        """
        return 1.0 / max(self.units_s, self.port_s)


def demand_of(
    requests: Sequence[Request],
    *,
    placement: Placement,
    model: ModelShape,
    gpu: GpuSpeed,
    topology: Topology,
    max_batch_tokens: int,
    options: StepOptions = PLAIN,
) -> Demand:
    """Return what the mean of `requests` takes of the cluster.

    Only the order of the arrivals matters (for the reuse), not their times. Raises `ValueError` without
    requests.
    """
    if not requests:
        raise ValueError("the capacity for no requests is not defined")
    reuse = ideal_reuse_tokens(requests)
    count = len(requests)
    mean_prompt = sum(r.prompt_tokens for r in requests) / count
    mean_reuse = sum(reuse.values()) / count
    mean_new = mean_prompt - mean_reuse
    mean_scores = [
        sum(
            mixer_score_flops(mixer, new_tokens=r.prompt_tokens - reuse[r.id], prefix_tokens=reuse[r.id])
            for r in requests
        )
        / count
        for mixer in mixers(model)
    ]
    kinds = [
        _Kind.of(units, placement, model, gpu, topology, max_batch_tokens, options, mean_new, mean_scores)
        for units in kinds_of_units(placement, topology).values()
    ]
    # How many units like this one would serve as much as all units together.
    as_many = [sum(len(other.units) * (kind.unit_s / other.unit_s) for other in kinds) for kind in kinds]
    shares = [len(kind.units) / many for kind, many in zip(kinds, as_many, strict=True)]
    collectives = merged(
        scaled(step_traffic(group.steps, placement), len(group.layers) * mean_new / (kind.tokens * many))
        for kind, many in zip(kinds, as_many, strict=True)
        for alike in kind.batches
        for group in alike
    )
    fetching = sum(tokens > 0 for tokens in reuse.values()) / count
    fetched = _Sent(mean_reuse, fetching, 1, model)
    delivered = _Sent(mean_prompt, 1.0, placement.decode_tp, model)
    served = [(kind.units, share) for kind, share in zip(kinds, shares, strict=True)]
    loads = {
        Stage.KV_REUSE: merged(_reuse_loads(fetched, served, placement, topology)),
        Stage.COLLECTIVE: port_loads(collectives, topology),
        Stage.P2D: merged(_delivery_loads(delivered, served, placement, topology)),
    }
    ports_s = port_seconds(merged(loads.values()), topology)
    port = max(ports_s, key=ports_s.__getitem__, default=None)
    return Demand(
        units_s=kinds[0].unit_s / as_many[0],
        port=port,
        port_s=0.0 if port is None else ports_s[port],
        ports={
            stage: frozenset(port for port, size in load.items() if size > 0) for stage, load in loads.items()
        },
    )


def decode_rps(job: Job, requests: Sequence[Request]) -> float | None:
    """Return the requests/s that the decode workers of `job` can answer in full steps; None if that is no
    limit, because decoding is not modelled or each answer is a single token.

    A full step has `decode_batch` requests of the mean context, which on average have half of their answer.
    """
    most = job.serving.decode_batch
    # The first token comes from a step of its own (`plans.build.decode_step_s`).
    later = sum(max(0, request.output_tokens - 1) for request in requests)
    if most is None or not later:
        return None
    steps = later / len(requests)
    # Requests weigh by their steps: a long answer is in more of them.
    context = sum(
        max(0, one.output_tokens - 1) * (one.prompt_tokens + one.output_tokens / 2) for one in requests
    )
    each = round(context / later)
    step_s = batch_step_s(job.model, job.gpu, [each] * most, job.placement.decode_tp)
    return len(job.placement.decode_workers) * most / (steps * step_s)


class _Kind(NamedTuple):
    """Units of one size and with the same NICs.

    `batches` are the layers of a full, even batch on each, of `tokens` new tokens, without attention
    scores. `unit_s` are the seconds of a unit per request, scores included.
    """

    units: Sequence[str]
    batches: Sequence[tuple[AlikeLayers, ...]]
    tokens: int
    unit_s: float

    @classmethod
    def of(
        cls,
        units: Sequence[str],
        placement: Placement,
        model: ModelShape,
        gpu: GpuSpeed,
        topology: Topology,
        max_batch_tokens: int,
        options: StepOptions,
        mean_new: float,
        mean_scores: Sequence[float],
    ) -> "_Kind":
        first = units[0]
        replicas = len(placement.replicas[first])
        share = max(1, max_batch_tokens // replicas)
        tokens = share * replicas
        work = [ReplicaWork(new_tokens=share)] * replicas
        batches = [
            unit_steps(work, unit=unit, placement=placement, model=model, gpu=gpu, options=options)
            for unit in units
        ]
        ranks = len(placement.units[first]) // placement.shapes[first].pp
        scores_s = [compute_s(gpu, scores / ranks) for scores in mean_scores]

        def takes_s(group: AlikeLayers) -> float:
            token_s = layer_s(group.steps, placement, topology) / tokens
            return len(group.layers) * (mean_new * token_s + scores_s[group.mixer])

        return cls(units, batches, tokens, slowest_stage(batches[0], takes_s))


class _Sent(NamedTuple):
    """What the mean request sends: KV of `tokens`, with the copies of `tp` ranks, and `states` states."""

    tokens: float
    states: float
    tp: int
    model: ModelShape

    def of_stage(self, stage: int, pp: int) -> float:
        """Bytes in the layers that one of `pp` pipeline stages has."""
        own = [mixer_of(self.model, layer) for layer in layers_of(stage, self.model.layers, pp)]
        token_bytes = sum(kept_bytes(self.model, mixer) * copies(mixer, self.tp) for mixer in own)
        return self.tokens * token_bytes + self.states * sum(map(state_bytes, own))


Served = Sequence[tuple[Sequence[str], float]]
"""Units of one size, and the share of all requests that they serve together."""


def _reuse_loads(
    sent: _Sent, served: Served, placement: Placement, topology: Topology
) -> list[dict[PortId, float]]:
    """S1, from any replica to any replica, itself included."""
    loads: list[dict[PortId, float]] = []
    for (units, share), (others, their_share) in product(served, served):
        both_share = share * their_share
        if units == others:
            loads += _reuse_loads_among(sent, both_share, units, placement, topology)
            continue
        senders, receivers = _replicas(units, placement), _replicas(others, placement)
        for src, dst, of_sender in ways(placement.shapes[units[0]], placement.shapes[others[0]]):
            size = sent.of_stage(0, 1) * both_share * of_sender / len(senders[0])
            nodes = [
                Counter(placement.node_of(r[i]) for r in of) for of, i in ((senders, src), (receivers, dst))
            ]
            loads.append(topology.even_loads(nodes[0], nodes[1], size))
    return loads


def _reuse_loads_among(
    sent: _Sent, share: float, units: Sequence[str], placement: Placement, topology: Topology
) -> list[dict[PortId, float]]:
    """S1 among units of one size, shard by shard: shard k of a replica goes to shard k of another."""
    loads: list[dict[PortId, float]] = []
    pp = placement.shapes[units[0]].pp
    for stage in range(pp):
        replicas = [
            stage_shards(placement, unit, number, stage)
            for unit in units
            for number in range(len(placement.replicas[unit]))
        ]
        shard_bytes = sent.of_stage(stage, pp) * share / len(replicas[0])
        for shard in zip(*replicas, strict=True):
            nodes = Counter(map(placement.node_of, shard))
            loads.append(topology.even_loads(nodes, nodes, shard_bytes))
    return loads


def _replicas(units: Sequence[str], placement: Placement) -> list[tuple[int, ...]]:
    return [replica for unit in units for replica in placement.replicas[unit]]


def _delivery_loads(
    sent: _Sent, served: Served, placement: Placement, topology: Topology
) -> list[dict[PortId, float]]:
    """S3, from any rank of a pipeline stage to any rank of a decode worker that shares heads with it.

    Both sides divide the heads. The greatest number of equal parts in which they agree is their greatest
    common divisor. Inside such a part, each rank counts as sending to each one evenly.
    """
    loads: list[dict[PortId, float]] = []
    for units, served_share in served:
        shape = placement.shapes[units[0]]
        parts = gcd(shape.tp, placement.decode_tp)
        for stage in range(shape.pp):
            ranks = [rank for unit in units for rank in stage_ranks(placement, unit, stage)]
            part_bytes = sent.of_stage(stage, shape.pp) * served_share / parts
            for part in range(parts):
                senders = _nodes(placement, ranks, shape.tp, part, parts)
                receivers = _nodes(placement, placement.decode, placement.decode_tp, part, parts)
                loads.append(topology.even_loads(senders, receivers, part_bytes))
    return loads


def _nodes(placement: Placement, ranks: Sequence[int], tp: int, part: int, parts: int) -> Counter[str]:
    """The nodes of the ranks that have part `part` of `parts` of the heads; `ranks` are rows of `tp`."""
    return Counter(placement.node_of(rank) for i, rank in enumerate(ranks) if i % tp * parts // tp == part)
