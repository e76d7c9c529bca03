"""What a job can ask of the simulated fabric only, refused by name."""

from testbed.fabric import JobRefused
from testbed.job import Job
from testbed.serving.routing.decode_choices import reads_ports_now
from testbed.topology import Topology, TopologyKind


def refuse_simulated_only(job: Job) -> None:
    """Raise `JobRefused`, naming the key, for an order or a decode choice that needs a simulated network."""
    if job.simulation.hybrid:
        raise JobRefused(
            "simulation.order: hybrid needs servers that keep an exact order; only the simulated fabric has"
            " them"
        )
    if job.requests and not job.plans and reads_ports_now(job.serving.decode_choice):
        raise JobRefused(
            f"serving.decode: {job.serving.decode_choice} has to know what flows have left on ports now;"
            " only the simulated fabric does"
        )


def refuse_parts(topology: Topology, *, servers: str, latency: str) -> None:
    """Raise `JobRefused`, naming the key, for servers with several NICs or links inside, and for latencies.

    `servers` and `latency` say what the fabric has instead.
    """
    shape = topology.shape
    for key, there in (
        ("kind", topology.kind is TopologyKind.RAIL_OPTIMISED),
        ("nics_per_server", shape.nics > 1),
        ("nvlink_gbps", shape.nvlink_bps is not None),
        ("pcie_gbps", shape.pcie_bps is not None),
    ):
        if there:
            raise JobRefused(f"topology.{key}: {servers}; only the simulated fabric has more")
    if any(link.latency_ns for link in topology.links):
        raise JobRefused(f"topology.latency_us: {latency}")
