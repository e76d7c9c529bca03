"""What a request would cost on a unit, in time: estimates for routers."""

from collections.abc import Sequence

from controller.units import NS_PER_S
from testbed.job import Job, UnitShape
from testbed.models.gpus import compute_s
from testbed.models.sizes import kv_bytes_per_token, score_flops_of_layers, state_bytes_per_request
from testbed.serving.cache.assignment import Assigned
from testbed.serving.plans.idle_network import Traffic
from testbed.serving.plans.kv_moves import ways
from testbed.serving.routing.port_bytes import PortBytes


def compute_ns(job: Job, item: Assigned, unit: str, token_ns: float) -> float:
    """Model ns that the new tokens of `item` take, at the unit's `token_ns` each, plus attention scores.

    The ranks of its replica share the scores.
    """
    request = item.request
    prefix = request.prompt_tokens - item.new_tokens
    flops = score_flops_of_layers(job.model, new_tokens=item.new_tokens, prefix_tokens=prefix)
    ranks = len(job.placement.replicas[unit][item.replica])
    return item.new_tokens * token_ns + compute_s(job.gpu, flops / ranks) * NS_PER_S


def transfer_ns(
    job: Job, item: Assigned, unit: str, port_bytes: PortBytes, hidden_ns: float, queue_ns: float
) -> float:
    """Model ns that the request would wait for the prefix it fetches (S1).

    Let S1 be the time of the busiest port on the path, for these bytes and for all bytes still to come
    there, L the number of layers, and c the compute time, `hidden_ns`. The wait is

        S1 - (L - 1) / L min(S1, c)

    The first layer waits for all of its own S1. A later layer waits only for what the layers before it have
    not hidden. With `fetch_early`, the time in the queue (`queue_ns`) hides S1 too.
    """
    traffic = fetch_traffic(job, item, unit)
    if not traffic:
        return 0.0
    s1_ns = max(port_bytes.seconds(traffic), default=0.0) * NS_PER_S
    exposed_ns = s1_ns - (job.model.layers - 1) / job.model.layers * min(s1_ns, hidden_ns)
    return max(0.0, exposed_ns - queue_ns) if job.serving.fetch_early else exposed_ns


def fetch_traffic(job: Job, item: Assigned, unit: str) -> Traffic:
    """All S1 bytes of `item` between nodes, spread evenly over the shards of a replica."""
    placement = job.placement
    home = placement.replicas[unit][item.replica]
    token_bytes, state = kv_bytes_per_token(job.model), state_bytes_per_request(job.model)
    traffic: Traffic = {}
    for fetch in (*item.fetches, *item.under_way):
        holder = placement.replicas[fetch.unit][fetch.replica]
        size = fetch.blocks * item.request.block_tokens * (token_bytes / len(holder))
        if fetch.ends_prefix:
            size += state / len(holder)
        for src, dst, share in ways(placement.shapes[fetch.unit], placement.shapes[unit]):
            pair = placement.node_of(holder[src]), placement.node_of(home[dst])
            traffic[pair] = traffic.get(pair, 0.0) + size * share
    return traffic


def delivery_traffic(
    job: Job, prompt_tokens: int, unit: str, replica: int, decode_ranks: Sequence[int]
) -> Traffic:
    """All S3 bytes of a request between nodes, spread evenly over the shards of its replica."""
    placement = job.placement
    ranks = placement.replicas[unit][replica]
    kv_bytes = prompt_tokens * kv_bytes_per_token(job.model, placement.decode_tp)
    size = (kv_bytes + state_bytes_per_request(job.model)) / len(ranks)
    traffic: Traffic = {}
    for src, dst, share in ways(placement.shapes[unit], UnitShape(tp=placement.decode_tp)):
        pair = placement.node_of(ranks[src]), placement.node_of(decode_ranks[dst])
        traffic[pair] = traffic.get(pair, 0.0) + size * share
    return traffic
