"""A flow set through our own fluid network, and what every tool's replay returns."""

import platform
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import msgspec

from experiments.bench.flow_sets import FlowSet
from testbed.simulation.links.network import FluidNetwork

KIB = 1024


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """One flow set in one tool.

    `finish_ns` has the flows' order. `wall_s` and `cpu_s` are the simulation alone: the network is built
    before, and the finish times are read after. `peak_bytes` is of the process, its modules included.
    `shared_anew` is the mean number of flows whose rates a change recomputed, where the tool tells it.
    """

    version: str
    finish_ns: list[float]
    wall_s: float
    cpu_s: float
    peak_bytes: int
    shared_anew: float | None = None


def replay_ours(flow_set: FlowSet) -> Replay:
    """Run `flow_set` in this process. An untimed run of its first flows loads the compiled functions."""
    run_fluid(msgspec.structs.replace(flow_set, flows=flow_set.flows[:10]))
    return run_fluid(flow_set)


def run_fluid(flow_set: FlowSet) -> Replay:
    network = FluidNetwork({port: float(bps) for port, bps in flow_set.bps.items()})
    starts = [flow.start_ns for flow in flow_set.flows]
    sizes = [flow.size_bytes for flow in flow_set.flows]
    ports = [network.ports(flow.path) for flow in flow_set.flows]
    begun, begun_cpu = time.perf_counter(), time.process_time()
    finish_ns = drive(network, starts, sizes, ports)
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - begun_cpu
    settlings, worked_out = network.worked_out
    return Replay(
        version=f"{metadata.version('mfs-testbed')}, Python {platform.python_version()}",
        finish_ns=finish_ns,
        wall_s=wall_s,
        cpu_s=cpu_s,
        peak_bytes=peak_bytes(),
        shared_anew=worked_out / max(1, settlings),
    )


def drive(
    network: FluidNetwork, starts_ns: Sequence[int], sizes: Sequence[int], ports: Sequence[tuple[int, ...]]
) -> list[float]:
    """Send flows, in order of their starts, through `network`; return when each has ended, in nanoseconds."""
    finish_ns = [0.0] * len(starts_ns)
    flow_of: dict[int, int] = {}
    place = (0, 0.0)
    begun, count = 0, len(starts_ns)
    while begun < count or len(network):
        end_ns = network.next_end_ns()
        now_ns = starts_ns[begun] if begun < count else end_ns
        if end_ns is not None and (now_ns is None or end_ns < now_ns):
            now_ns = end_ns
        assert now_ns is not None, "flows are active, but none moves and nothing is to come"
        for stream in network.take_finished(now_ns):
            finish_ns[flow_of[stream]] = now_ns
        while begun < count and starts_ns[begun] <= now_ns:
            flow_of[network.add(ports[begun], sizes[begun], place)] = begun
            begun += 1
        network.settle(now_ns)
    return finish_ns


def peak_bytes() -> int:
    """Peak memory of this process. On Linux, `getrusage` would also count the parent before `exec`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    raise RuntimeError("/proc/self/status has no VmHWM")
