"""What a request takes of a cluster, and how many per second the cluster can be expected to sustain."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from controller.flow import PortId
from testbed.job import Placement, Request
from testbed.models.gpus import GpuSpeed, compute_s
from testbed.models.mixers import kept_bytes, mixer_of, mixer_score_flops, mixers, state_bytes
from testbed.models.shape import ModelShape
from testbed.placement import layers_of, stage_ranks, stage_shards
from testbed.serving.plans.idle_network import layer_s, merged, port_loads, port_seconds, scaled, step_traffic
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
      work on other batches meanwhile.
    - `port_s`: of `port`, the busiest one. The bytes of S1, S2 and S3 are spread evenly over the ranks that
      send and receive them. Reused KV is equally likely on every replica. `port` is None if nothing is sent.

    This is the least it can take: prompts reuse all that they share with earlier ones.
    """

    units_s: float
    port: PortId | None
    port_s: float

    @property
    def capacity_rps(self) -> float:
        """Requests/s that the cluster can sustain: what units or ports allow, whichever is less.

        This is an upper estimate: uneven batches, waiting and contention cost some of it.
        """
        return 1.0 / max(self.units_s, self.port_s)


def estimated_capacity_rps(
    requests: Sequence[Request],
    *,
    placement: Placement,
    model: ModelShape,
    gpu: GpuSpeed,
    topology: Topology,
    max_batch_tokens: int,
    options: StepOptions = PLAIN,
) -> float:
    """Requests/s that the cluster can sustain (`Demand.capacity_rps`); `workload.load` is a share of it.

    Raises `ValueError` without requests.
    """
    return demand_of(
        requests,
        placement=placement,
        model=model,
        gpu=gpu,
        topology=topology,
        max_batch_tokens=max_batch_tokens,
        options=options,
    ).capacity_rps


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
    units = placement.units
    batches, tokens = _full_batches(placement, model, gpu, max_batch_tokens, options)
    collectives = merged(
        scaled(step_traffic(group.steps, placement), len(group.layers) * mean_new / (tokens * len(units)))
        for alike in batches.values()
        for group in alike
    )
    fetching = sum(tokens > 0 for tokens in reuse.values()) / count
    fetched = _bytes_of_stages(mean_reuse, fetching, placement, model)
    delivered = _bytes_of_stages(mean_prompt, 1.0, placement, model)
    load = merged(
        (
            port_loads(collectives, topology),
            *_reuse_loads(fetched, placement, topology),
            *_delivery_loads(delivered, placement, topology),
        )
    )
    ports_s = port_seconds(load, topology)
    port = max(ports_s, key=ports_s.__getitem__, default=None)

    first, ranks = next(iter(units.items()))
    scores_s = [compute_s(gpu, scores / (len(ranks) // placement.pp)) for scores in mean_scores]

    def takes_s(group: AlikeLayers) -> float:
        token_s = layer_s(group.steps, placement, topology) / tokens
        return len(group.layers) * (mean_new * token_s + scores_s[group.mixer])

    unit_s = slowest_stage(batches[first], takes_s)
    return Demand(units_s=unit_s / len(units), port=port, port_s=0.0 if port is None else ports_s[port])


def _full_batches(
    placement: Placement,
    model: ModelShape,
    gpu: GpuSpeed,
    max_batch_tokens: int,
    options: StepOptions,
) -> tuple[dict[str, tuple[AlikeLayers, ...]], int]:
    """The layers of a full, even batch on each unit, without attention scores, and its number of tokens."""
    replicas = len(next(iter(placement.replicas.values())))
    share = max(1, max_batch_tokens // replicas)
    work = [ReplicaWork(new_tokens=share)] * replicas
    steps = {
        unit: unit_steps(work, unit=unit, placement=placement, model=model, gpu=gpu, options=options)
        for unit in placement.units
    }
    return steps, share * replicas


def _reuse_loads(
    stage_bytes: Sequence[float], placement: Placement, topology: Topology
) -> list[dict[PortId, float]]:
    """S1, shard by shard, from shard k of any replica to shard k of any replica, itself included."""
    loads: list[dict[PortId, float]] = []
    for stage in range(placement.pp):
        replicas = [
            stage_shards(placement, unit, number, stage)
            for unit, of_unit in placement.replicas.items()
            for number in range(len(of_unit))
        ]
        shard_bytes = stage_bytes[stage] / len(replicas[0])
        for shard in zip(*replicas, strict=True):
            nodes = Counter(map(placement.node_of, shard))
            loads.append(topology.even_loads(nodes, nodes, shard_bytes))
    return loads


def _delivery_loads(
    stage_bytes: Sequence[float], placement: Placement, topology: Topology
) -> list[dict[PortId, float]]:
    """S3, from any rank of a pipeline stage to any decode worker."""
    receivers = Counter(map(placement.node_of, placement.decode))
    loads: list[dict[PortId, float]] = []
    for stage in range(placement.pp):
        ranks = [rank for unit in placement.units for rank in stage_ranks(placement, unit, stage)]
        senders = Counter(map(placement.node_of, ranks))
        loads.append(topology.even_loads(senders, receivers, stage_bytes[stage]))
    return loads


def _bytes_of_stages(tokens: float, states: float, placement: Placement, model: ModelShape) -> list[float]:
    """Bytes of the KV of `tokens` and of the states of `states` requests in each pipeline stage."""
    found: list[float] = []
    for stage in range(placement.pp):
        own = [mixer_of(model, layer) for layer in layers_of(stage, model.layers, placement.pp)]
        token_bytes = sum(kept_bytes(model, mixer) for mixer in own)
        found.append(tokens * token_bytes + states * sum(map(state_bytes, own)))
    return found
