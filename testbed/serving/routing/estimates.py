"""What a request would cost on a unit, in time: estimates for routers."""

from collections.abc import Iterable, Sequence

from controller.units import NS_PER_S
from testbed.job import Job, UnitShape
from testbed.models.sizes import kv_bytes_per_token, state_bytes_per_request
from testbed.serving.cache.assignment import Assigned
from testbed.serving.plans.idle_network import Traffic
from testbed.serving.plans.kv_moves import ways
from testbed.serving.routing.port_bytes import PortBytes


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
    exposed_ns = exposed_s1_ns(s1_ns, hidden_ns, job.model.layers)
    return max(0.0, exposed_ns - queue_ns) if job.serving.fetch_early else exposed_ns


def exposed_s1_ns(s1_ns: float, hidden_ns: float, layers: int) -> float:
    """What `hidden_ns` of compute does not hide of S1, as in `transfer_ns`."""
    return s1_ns - (layers - 1) / layers * min(s1_ns, hidden_ns)


def delivery_ns(
    ports: Iterable[tuple[float, float]], *, layers: int, prefill_ns: float, layers_ns: float
) -> float:
    """Model ns from the end of prefill until the request's KV (S3) has left the unit's own ports.

    `ports` has, for each of these ports, the ns b that it takes for what it has to send besides, and the ns d
    for this request's S3. Prefill ends `prefill_ns` (p) from now. Its L = `layers` layers end evenly over the
    last `layers_ns` (c) of it: these are compute, or the arrival of S1 if that takes longer. S3 is posted
    layer by layer, after what the port has already:

        max(p + d / L, max(b, p - (L - 1) / L c) + d) - p

    The last layer always leaves after prefill. The other layers leave meanwhile if the port is free by then.
    The port that takes longest counts.
    """
    first_ns = prefill_ns - (layers - 1) / layers * layers_ns
    return max(
        (max(d / layers, max(b, first_ns) + d - prefill_ns) for b, d in ports),
        default=0.0,
    )


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


def delivery_bytes(job: Job, prompt_tokens: int) -> float:
    """All S3 bytes of a request: every copy of a head that the decode ranks keep, and its states."""
    kv_bytes = prompt_tokens * kv_bytes_per_token(job.model, job.placement.decode_tp)
    return kv_bytes + state_bytes_per_request(job.model)


def delivery_traffic(
    job: Job, prompt_tokens: int, unit: str, replica: int, decode_ranks: Sequence[int]
) -> Traffic:
    """All S3 bytes of a request between nodes, spread evenly over the shards of its replica."""
    placement = job.placement
    ranks = placement.replicas[unit][replica]
    size = delivery_bytes(job, prompt_tokens) / len(ranks)
    traffic: Traffic = {}
    for src, dst, share in ways(placement.shapes[unit], UnitShape(tp=placement.decode_tp)):
        pair = placement.node_of(ranks[src]), placement.node_of(decode_ranks[dst])
        traffic[pair] = traffic.get(pair, 0.0) + size * share
    return traffic
