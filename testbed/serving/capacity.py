"""How many requests per second a cluster can be expected to sustain."""

from collections import Counter
from collections.abc import Sequence

from controller.flow import PortId
from testbed.job import GpuSpeed, ModelShape, Placement, Request
from testbed.serving.gpus import compute_s
from testbed.serving.ideal import busiest_s, layer_s, merged, port_loads, scaled, step_traffic
from testbed.serving.models import kv_bytes_per_token, score_flops
from testbed.serving.placement import tensor_parallel
from testbed.serving.slo import ideal_reuse_tokens
from testbed.serving.steps import ReplicaWork, layer_steps
from testbed.topology import Topology
from workers.plan import CollectiveKind, Step


def estimated_capacity_rps(
    requests: Sequence[Request],
    *,
    placement: Placement,
    model: ModelShape,
    gpu: GpuSpeed,
    topology: Topology,
    max_batch_tokens: int,
    all_reduce: CollectiveKind = CollectiveKind.ALL_REDUCE,
) -> float:
    """Requests/s the cluster sustains; `workload.load` is a share of it.

    The smaller of two rates, both for the workload's mean request with its ideal reuse:

    - prefill: units / (seconds of a unit per request), in full, evenly spread batches: compute at
      the GPU's speed plus collectives at line rate, nothing overlapped, nobody waiting;
    - network: 1 / (seconds of the busiest port per request), with every stage's bytes spread
      evenly over the ranks that send and receive them. Reused KV is taken to sit on any replica.

    Of the arrivals only the order matters (for the reuse), not the times. An upper estimate: uneven
    batches, waiting and contention cost some of it. Raises `ValueError` for no requests.
    """
    if not requests:
        raise ValueError("the capacity for no requests is not defined")
    reuse = ideal_reuse_tokens(requests)
    count = len(requests)
    mean_prompt = sum(r.prompt_tokens for r in requests) / count
    mean_reuse = sum(reuse.values()) / count
    mean_new = mean_prompt - mean_reuse
    mean_scores = (
        sum(
            score_flops(
                model,
                new_tokens=r.prompt_tokens - reuse[r.id],
                prefix_tokens=reuse[r.id],
            )
            for r in requests
        )
        / count
    )
    units = placement.units
    batches, tokens = _full_batches(placement, model, gpu, max_batch_tokens, all_reduce)
    collectives = merged(
        scaled(step_traffic(steps, placement), model.layers * mean_new / (tokens * len(units)))
        for steps in batches.values()
    )
    reuse_bytes = mean_reuse * kv_bytes_per_token(model)
    delivery_bytes = mean_prompt * kv_bytes_per_token(model)
    load = merged(
        (
            port_loads(collectives, topology),
            *_reuse_loads(reuse_bytes, placement, topology),
            _delivery_load(delivery_bytes, placement, topology),
        )
    )
    port_s = busiest_s(load, topology)

    first, ranks = next(iter(units.items()))
    token_s = layer_s(batches[first], placement, topology) / tokens
    unit_s = model.layers * (mean_new * token_s + compute_s(gpu, mean_scores / len(ranks)))
    return 1.0 / max(unit_s / len(units), port_s)


def _full_batches(
    placement: Placement,
    model: ModelShape,
    gpu: GpuSpeed,
    max_batch_tokens: int,
    all_reduce: CollectiveKind,
) -> tuple[dict[str, tuple[Step, ...]], int]:
    """One layer of a full, even batch on each unit, without scores, and its number of tokens."""
    replicas = len(next(iter(placement.replicas.values())))
    share = max(1, max_batch_tokens // replicas)
    work = [ReplicaWork(new_tokens=share, score_flops=0)] * replicas
    steps = {
        unit: layer_steps(work, unit=unit, placement=placement, model=model, gpu=gpu, all_reduce=all_reduce)
        for unit in placement.units
    }
    return steps, share * replicas


def _reuse_loads(kv_bytes: float, placement: Placement, topology: Topology) -> list[dict[PortId, float]]:
    """S1, by shard: shard k of any replica to shard k of any replica (to itself, it crosses no port)."""
    replicas = [r for unit in placement.replicas.values() for r in unit]
    tp = tensor_parallel(placement)
    shards = [Counter(placement.node_of(r[k]) for r in replicas) for k in range(tp)]
    return [topology.even_loads(shard, shard, kv_bytes / tp) for shard in shards]


def _delivery_load(kv_bytes: float, placement: Placement, topology: Topology) -> dict[PortId, float]:
    """S3: any prefill rank to any decode rank."""
    senders = Counter(placement.node_of(r) for unit in placement.units.values() for r in unit)
    receivers = Counter(placement.node_of(rank) for rank in placement.decode)
    return topology.even_loads(senders, receivers, kv_bytes)
