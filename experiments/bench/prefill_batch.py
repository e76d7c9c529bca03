"""Made-up prefill batches on a star of 32 servers: the flows that policies are timed with."""

import random
from dataclasses import dataclass

from controller.flow import Batch, BatchRequest, Flow, PortId, Stage
from controller.units import NS_PER_S
from controller.urgency import transfer_ns
from testbed.topology import Topology, star

NIC_BPS = 100_000_000_000
UNITS = (tuple(range(1, 9)), tuple(range(9, 17)))
DECODE_SERVERS = tuple(range(17, 33))

LAYERS = 32
LAYER_NS = 15_000_000
DECODE_STEP_NS = 20_000_000
REQUESTS_PER_BATCH = 4
REUSING_REQUESTS = 2
COLLECTIVES = ("dispatch", "combine")
SLO_NS = (6 * NS_PER_S // 10, 25 * NS_PER_S // 10)

S1_BYTES, S2_BYTES, S3_BYTES = 64_000_000, 48_000_000, 128_000_000
"""Mean size of a flow if one batch computes at a time. If n do, sizes are divided by n, so that the load of
ports does not depend on n."""


def cluster() -> Topology:
    """32 servers on one switch: two prefill units of eight, 16 decode workers."""
    return star(servers=32, nic_bps=NIC_BPS)


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """A request. Its reused KV comes from server `victim`; its KV goes from server `source` to `decode`."""

    id: str
    deadline_ns: int
    victim: int
    source: int
    decode: int
    reuses: bool
    s1_bytes: int
    s3_bytes: int

    def told(self) -> BatchRequest:
        load = _between(self.source, self.decode, LAYERS * self.s3_bytes)
        if self.reuses:
            load[f"h{self.victim}->s1"] = load[f"s1->h{self.source}"] = LAYERS * self.s1_bytes
        tail_ns = transfer_ns(self.s3_bytes, NIC_BPS) + DECODE_STEP_NS
        return BatchRequest(id=self.id, deadline_ns=self.deadline_ns, tail_ns=tail_ns, load=load)


@dataclass(frozen=True, slots=True)
class BenchBatch:
    """A batch of `LAYERS` layers on a unit; a rank sends `share_bytes` in one collective."""

    id: str
    unit: int
    requests: tuple[BenchRequest, ...]
    share_bytes: int

    @classmethod
    def drawn(
        cls, draw: random.Random, batch_id: str, *, unit: int, now_ns: int, at_once: int
    ) -> "BenchBatch":
        """Draw a batch that starts at `now_ns`, one of `at_once` that compute at a time."""

        def size(mean_bytes: int) -> int:
            return round(mean_bytes * draw.uniform(0.5, 1.5) / at_once)

        requests = tuple(
            BenchRequest(
                id=f"{batch_id}r{index}",
                deadline_ns=now_ns + draw.randint(*SLO_NS),
                victim=draw.choice(UNITS[1 - unit]),
                source=draw.choice(UNITS[unit]),
                decode=draw.choice(DECODE_SERVERS),
                reuses=index < REUSING_REQUESTS,
                s1_bytes=size(S1_BYTES),
                s3_bytes=size(S3_BYTES),
            )
            for index in range(REQUESTS_PER_BATCH)
        )
        peers = len(UNITS[unit]) - 1
        return cls(batch_id, unit, requests, share_bytes=size(S2_BYTES) // peers * peers)

    def told(self) -> Batch:
        sent = LAYERS * len(COLLECTIVES) * self.share_bytes
        return Batch(
            id=self.id,
            layers=LAYERS,
            requests=tuple(request.told() for request in self.requests),
            compute_ns=LAYERS * LAYER_NS,
            load={port: sent for i in UNITS[self.unit] for port in (f"h{i}->s1", f"s1->h{i}")},
        )

    def fetches(self, layer: int) -> list[Flow]:
        """Return the S1 of one layer: one flow for each request that reuses a prefix."""
        return [
            Flow(
                id=f"{self.id}.{request.id}.l{layer}.s1.{request.victim}-{request.source}",
                stage=Stage.KV_REUSE,
                size_bytes=request.s1_bytes,
                load=_between(request.victim, request.source, request.s1_bytes),
                batch=self.id,
                request=request.id,
                layer=layer,
                coflow=f"{self.id}.l{layer}.S1",
                downstream_ns=(LAYERS - layer) * LAYER_NS,
            )
            for request in self.requests
            if request.reuses
        ]

    def shares(self, layer: int, label: str) -> list[Flow]:
        """Return one collective (S2) of a layer: one share for each server of the unit."""
        members = UNITS[self.unit]
        part = self.share_bytes // (len(members) - 1)
        return [
            Flow(
                id=f"{self.id}.l{layer}.{label}.{index}",
                stage=Stage.COLLECTIVE,
                size_bytes=self.share_bytes,
                load={f"h{member}->s1": self.share_bytes}
                | {f"s1->h{peer}": part for peer in members if peer != member},
                batch=self.id,
                layer=layer,
                coflow=f"{self.id}.l{layer}.{label}",
                downstream_ns=(LAYERS - 1 - layer) * LAYER_NS,
            )
            for index, member in enumerate(members)
        ]

    def deliveries(self, layer: int) -> list[Flow]:
        """Return the S3 of one layer: one flow for each request."""
        return [
            Flow(
                id=f"{self.id}.{request.id}.l{layer}.s3.{request.source}-{request.decode}",
                stage=Stage.P2D,
                size_bytes=request.s3_bytes,
                load=_between(request.source, request.decode, request.s3_bytes),
                batch=self.id,
                request=request.id,
                layer=layer,
                coflow=f"{self.id}.l{layer}.S3",
                deadline_ns=request.deadline_ns,
                downstream_ns=(LAYERS - 1 - layer) * transfer_ns(request.s3_bytes, NIC_BPS) + DECODE_STEP_NS,
            )
            for request in self.requests
        ]


def _between(src: int, dst: int, size_bytes: int) -> dict[PortId, int]:
    return {f"h{src}->s1": size_bytes, f"s1->h{dst}": size_bytes}
