"""Collectives of one process group on the simulated fabric, run from a plan made by hand.

The servers are on one switch, with links of 8 Gbit/s: a byte takes a nanosecond, a megabyte a millisecond.
"""

from collections.abc import Mapping, Sequence

import msgspec
from serving_world import job, prompt

from controller.flow import PortId, Stage, Transfer
from testbed.fabrics import FABRICS
from testbed.job import Overheads, Placement, RankSpec, Role, SimulationOptions, UnitShape
from testbed.record import RunRecord
from testbed.topology import Topology, star
from workers.plan import BatchPlan, Collective, CollectiveKind, Compute, LayerPlan, RequestPlan, Step

MB = 1_000_000
MS = 1_000_000
BPS = 8_000_000_000


def collective(
    kind: CollectiveKind, *sizes: Sequence[int], rounds_s: Sequence[Sequence[float]] = ()
) -> Collective:
    return Collective(
        id="b.l0.c",
        group="g",
        kind=kind,
        sizes=tuple(map(tuple, sizes)),
        label="c",
        round_seconds=tuple(map(tuple, rounds_s)),
    )


def all_to_all(members: int, size: int) -> Collective:
    return collective(CollectiveKind.ALL_TO_ALL, *[[size] * members] * members)


def compute(*seconds: float) -> Compute:
    return Compute(label="w", seconds=seconds, flops=(0.0,) * len(seconds))


def world(
    members: int, *, bps: Mapping[PortId, int] | None = None, servers: int | None = None
) -> tuple[Topology, Placement]:
    """A unit of `members` ranks on `servers` servers (default: one each), and a decode worker on one more.
    `bps` has the rates of links that differ from `BPS`."""
    topology = star(servers=(servers or members) + 1, nic_bps=BPS)
    links = tuple(msgspec.structs.replace(link, bps=(bps or {}).get(link.id, BPS)) for link in topology.links)
    names = [f"h{1 + i % (servers or members)}" for i in range(members)] + [topology.servers[-1]]
    ranks = tuple(range(members))
    placement = Placement(
        ranks=tuple(
            RankSpec(rank=i, server=name, node=name, role=Role.PREFILL if i < members else Role.DECODE)
            for i, name in enumerate(names)
        ),
        units={"p0": ranks},
        replicas={"p0": (ranks,)},
        groups={"g": ranks},
        decode=(members,),
        shapes={"p0": UnitShape()},
    )
    return msgspec.structs.replace(topology, links=links), placement


def played(
    members: int,
    *steps: Step,
    grouped: bool = False,
    bps: Mapping[PortId, int] | None = None,
    servers: int | None = None,
    policy: str = "fair",
    overheads: Overheads | None = None,
    latency_ns: int = 0,
) -> RunRecord:
    """Run a layer with these steps and a byte of S3 after them; return the record."""
    topology, placement = world(members, bps=bps, servers=servers)
    topology = topology.with_latency(latency_ns)
    delivery = Transfer(
        id="kv", stage=Stage.P2D, src=0, dst=members, size_bytes=1, batch="b", request=0, layer=0
    )
    plan = BatchPlan(
        id="b",
        unit="p0",
        ranks=placement.units["p0"],
        requests=(
            RequestPlan(
                request=0,
                replica=placement.units["p0"],
                decode_ranks=(members,),
                new_tokens=1,
                local_tokens=0,
                remote_tokens=0,
                p2d_flows=(1,),
                decode_step_s=0.0,
                deadline_ns=10**12,
            ),
        ),
        layers=(LayerPlan(index=0, wait=(), steps=steps, post=(delivery,)),),
        compute_s=0.0,
        formed_ns=0,
    )
    run = msgspec.structs.replace(
        job(topology, placement),
        requests=(prompt(0, 1),),
        plans=(plan,),
        policy=policy,
        simulation=SimulationOptions(grouped=grouped, overheads=overheads or Overheads()),
    )
    record = FABRICS["sim"]().run(run, lambda progress: None)
    assert [check.name for check in record.fidelity.checks if not check.ok] == []
    return record


def ends_ms(record: RunRecord) -> list[float]:
    """When each member ended the collective, in the order of the ranks."""
    ends = {span.rank: span.end_ns for span in record.spans if span.kind == "collective"}
    return [ends[rank] / MS for rank in sorted(ends)]
