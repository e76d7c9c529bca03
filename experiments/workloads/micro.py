"""The micro workload: flows between named servers, without a serving system."""

from controller.flow import Transfer
from controller.units import NS_PER_S
from experiments.scenario.micro_flows import FlowSpec
from testbed.job import MicroFlow, Placement, RankSpec, Role
from testbed.topology import Topology


def endpoints(topology: Topology) -> Placement:
    """Return a placement with one rank per server, on its first GPU, that only sends and receives."""
    return Placement(
        ranks=tuple(
            RankSpec(rank=i, server=server, node=topology.endpoint(server, 0), role=Role.ENDPOINT, index=i)
            for i, server in enumerate(topology.servers)
        ),
        units={},
        replicas={},
        groups={},
        decode=(),
        shapes={},
    )


def micro_flows(specs: tuple[FlowSpec, ...], placement: Placement) -> tuple[MicroFlow, ...]:
    """Return the flows between the endpoints in `placement`, sorted by start. Their servers must exist."""
    rank_on = {spec.server: spec.rank for spec in placement.ranks}
    flows = [
        MicroFlow(
            transfer=Transfer(
                id=spec.id,
                stage=spec.stage,
                src=rank_on[spec.src],
                dst=rank_on[spec.dst],
                size_bytes=spec.bytes,
                batch=spec.batch,
                layer=spec.layer,
                deadline_ns=None if spec.deadline_s is None else round(spec.deadline_s * NS_PER_S),
            ),
            start_ns=round(spec.start_s * NS_PER_S),
        )
        for spec in specs
    ]
    return tuple(sorted(flows, key=lambda flow: flow.start_ns))
