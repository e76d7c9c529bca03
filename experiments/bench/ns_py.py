"""A flow set through ns.py, a packet simulator in Python.

Every link is a deficit round robin server with a queue for each flow, and a packet of 1,500 B goes on when
all of it has arrived. All packets of a flow are ready at its start, and queues have no limit. There is no
flow control: a flow that waits at a downlink still takes its share of its uplink. So the rates are those of
max-min fairness only where a flow shares no more than one link of its path with others.
"""

import time
from collections.abc import Generator
from importlib import metadata
from typing import Any

import simpy
from ns.packet.packet import Packet
from ns.packet.sink import PacketSink
from ns.scheduler.drr import DRRServer

from controller.units import NS_PER_S
from experiments.bench.flow_sets import PACKET_BYTES, FlowSet, SetFlow
from experiments.bench.replay import Replay, peak_bytes
from testbed.fabric import RunFailed


class NextHop:
    """What stands behind a link: puts a packet into the next link of its flow's path, or into the sink."""

    def __init__(self) -> None:
        self.following: dict[int, Any] = {}

    def put(self, packet: Any) -> None:
        self.following[packet.flow_id].put(packet)


def replay_ns_py(flow_set: FlowSet) -> Replay:
    """Run `flow_set` in this process. Raises `RunFailed` if a packet is missing at the end."""
    env = simpy.Environment()
    sink = PacketSink(env, rec_waits=False)
    crossing: dict[str, list[int]] = {}
    for number, flow in enumerate(flow_set.flows):
        for port in flow.path:
            crossing.setdefault(port, []).append(number)
    links: dict[str, Any] = {}
    for port, numbers in crossing.items():
        links[port] = DRRServer(env, flow_set.bps[port] / NS_PER_S, dict.fromkeys(numbers, 1))
        links[port].quantum = dict.fromkeys(numbers, PACKET_BYTES)  # a packet of each flow in a round
        links[port].out = NextHop()
    for number, flow in enumerate(flow_set.flows):
        env.process(_source(env, links[flow.path[0]], number, flow))
        for here, there in zip(flow.path, (*flow.path[1:], None), strict=True):
            links[here].out.following[number] = sink if there is None else links[there]
    begun, begun_cpu = time.perf_counter(), time.process_time()
    env.run()
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - begun_cpu
    for number, flow in enumerate(flow_set.flows):
        if sink.bytes_received[number] != flow.size_bytes:
            raise RunFailed(f"ns.py delivered {sink.bytes_received[number]} B of {flow}")
    return Replay(
        version=metadata.version("ns.py"),
        finish_ns=[float(sink.last_arrival[number]) for number in range(len(flow_set.flows))],
        wall_s=wall_s,
        cpu_s=cpu_s,
        peak_bytes=peak_bytes(),
    )


def _source(env: Any, uplink: Any, number: int, flow: SetFlow) -> Generator[Any, Any, None]:
    yield env.timeout(flow.start_ns)
    left = flow.size_bytes
    while left:
        size = min(left, PACKET_BYTES)
        uplink.put(Packet(env.now, size, flow.size_bytes - left, flow_id=number))
        left -= size
