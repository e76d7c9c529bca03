"""The S1 and S3 that is still to come, by request, and how long the ports of each unit are busy with it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

from controller.flow import PortId
from controller.units import NS_PER_S
from testbed.job import Job, ReuseRule, UnitShape
from testbed.serving.cache.assignment import Assigned
from testbed.serving.plans.idle_network import Traffic, drain_s, merged
from testbed.serving.plans.kv_moves import ways
from testbed.serving.routing.estimates import (
    delivery_bytes,
    delivery_ns,
    delivery_traffic,
    fetch_traffic,
    transfer_ns,
)
from testbed.serving.routing.port_bytes import PortBytes


class TrafficAhead:
    """What requests have still to send: S1 of formed batches until they end, S3 until the first token.

    While a request is queued, its replica and its decode worker are unknown. So its S3 then counts on the
    *own* ports of its unit only, evenly for all replicas: the ports of their servers, with the receivers
    spread evenly over the decode workers. If prefixes are computed again, a request is expected on the
    replica that has its prefix, and counts on the ports of that one. A replica that shares its server with
    a decode worker sends that worker nothing over these ports.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._bytes = PortBytes(job.topology)

    def queued(self, unit: str, item: Assigned) -> None:
        """A request waits on `unit`, and is expected to run as `item`."""
        request, own = item.request, self._own[unit]
        if self._job.serving.reuse is ReuseRule.RECOMPUTE and item.local_tokens:
            own = [own[item.replica]]
        size_bytes = delivery_bytes(self._job, request.prompt_tokens) / len(own)
        load = merged({port: share * size_bytes for port, share in of.items()} for of in own)
        self._bytes.put_load(("S3", request.id), load)

    def fetching(self, unit: str, item: Assigned) -> None:
        """It is known where a request runs, and what it fetches."""
        self._bytes.put(("S1", item.request.id), fetch_traffic(self._job, item, unit))

    def delivering(self, unit: str, item: Assigned, worker: tuple[int, ...]) -> None:
        """A request has a decode worker."""
        self._bytes.put(("S3", item.request.id), self._delivery(unit, item, worker))

    def fetched(self, request: int) -> None:
        self._bytes.take_off(("S1", request))

    def delivered(self, request: int) -> None:
        self._bytes.take_off(("S3", request))

    def own_ports(self, unit: str, replica: int) -> Iterable[PortId]:
        """The ports of the servers of a replica over which S3 leaves."""
        return self._own[unit][replica]

    def ports_ns(self, unit: str) -> float:
        """Model ns that a unit's own ports have still to send: the busiest port of a replica, as a mean."""
        replicas = self._own[unit]
        busy_s = (max(map(self._bytes.busy_s, own), default=0.0) for own in replicas)
        return sum(busy_s) / len(replicas) * NS_PER_S

    def ports_s(
        self,
        unit: str,
        item: Assigned,
        worker: tuple[int, ...],
        busy: Callable[[PortId], float] | None = None,
    ) -> tuple[float, ...]:
        """Seconds that each port to a decode worker takes for what is to come, this request's S3 included.

        With `busy`, the seconds that a port needs for what is on its way now, this counts instead of what is
        to come. The longest comes first.
        """
        return self._bytes.seconds(self._delivery(unit, item, worker), busy)

    def transfer_ns(self, unit: str, item: Assigned, *, hidden_ns: float, queue_ns: float) -> float:
        """`estimates.transfer_ns`."""
        return transfer_ns(self._job, item, unit, self._bytes, hidden_ns, queue_ns)

    def s1_ns(self, unit: str, items: Iterable[Assigned]) -> float:
        """Model ns of the busiest port for the S1 of `items`, of which none counts yet, behind all else."""
        traffic = merged(fetch_traffic(self._job, item, unit) for item in items)
        return max(self._bytes.seconds(traffic), default=0.0) * NS_PER_S

    def fetch_ns(self, request: int) -> float:
        """Model ns until the S1 of a running request has arrived, behind all else on its ports; 0 without."""
        return self._bytes.busiest_s(("S1", request)) * NS_PER_S

    def idle_fetch_ns(self, unit: str, item: Assigned) -> float:
        """Model ns that a request's S1 takes if its ports have nothing else to send."""
        return drain_s(fetch_traffic(self._job, item, unit), self._job.topology) * NS_PER_S

    def delivery_ns(
        self,
        unit: str,
        item: Assigned,
        *,
        prefill_ns: float,
        layers_ns: float,
        collectives_ns: float,
    ) -> float:
        """`estimates.delivery_ns` over the unit's own ports, which have `collectives_ns` to send, too."""
        topology = self._job.topology
        own = [
            (
                self._bytes.busy_s(port) * NS_PER_S + collectives_ns,
                size * 8 / topology.link(port).bps * NS_PER_S,
            )
            for port, size in self._leaving(unit, item).items()
        ]
        return delivery_ns(own, layers=self._job.model.layers, prefill_ns=prefill_ns, layers_ns=layers_ns)

    def _delivery(self, unit: str, item: Assigned, worker: tuple[int, ...]) -> Traffic:
        return delivery_traffic(self._job, item.request.prompt_tokens, unit, item.replica, worker)

    def _leaving(self, unit: str, item: Assigned) -> Mapping[PortId, float]:
        """Bytes of a request's S3 on the own ports of its replica."""
        size_bytes = delivery_bytes(self._job, item.request.prompt_tokens)
        return {port: share * size_bytes for port, share in self._own[unit][item.replica].items()}

    @cached_property
    def _own(self) -> dict[str, list[dict[PortId, float]]]:
        """For each replica of each unit, the share of its S3 that each of its own ports carries.

        Ranks that send the same share of theirs to a shard of the decode workers are taken together: every
        pair of ranks by itself would be too many.
        """
        placement, topology = self._job.placement, self._job.topology
        receivers = [
            Counter(map(placement.node_of, shard)) for shard in zip(*placement.decode_workers, strict=True)
        ]

        def of(unit: str, ranks: tuple[int, ...]) -> dict[PortId, float]:
            servers = {placement.server_of(rank) for rank in ranks}
            together: dict[tuple[int, float], list[str]] = {}
            for src, dst, share in ways(placement.shapes[unit], UnitShape(tp=placement.decode_tp)):
                together.setdefault((dst, share), []).append(placement.node_of(ranks[src]))
            load = merged(
                topology.even_loads(Counter(nodes), receivers[dst], share * len(nodes) / len(ranks))
                for (dst, share), nodes in together.items()
            )
            senders = {port: topology.server_of(topology.link(port).src) for port in load}
            return {port: share for port, share in load.items() if senders[port] in servers}

        return {
            unit: [of(unit, ranks) for ranks in replicas] for unit, replicas in placement.replicas.items()
        }
