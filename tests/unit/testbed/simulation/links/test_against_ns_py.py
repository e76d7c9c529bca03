"""Runs of the simulated fabric against another simulator: ns.py, packets through strict-priority queues.

A star of 1 Gb/s: a message crosses the sender's uplink and the receiver's downlink. A packet of 8,192 B
takes 65,536 ns on each, and the switch sends it on when all of it has arrived. A message's packets are
all ready at its start. There is no flow control in ns.py: packets wait in the switch for a downlink,
where a fluid leaves the uplink to others. So the cases are those in which that cannot matter: all
messages into one server, or all out of one.
"""

import random
from dataclasses import dataclass

import msgspec
import pytest
import simpy
from ns.packet.packet import Packet
from ns.packet.sink import PacketSink
from ns.scheduler.sp import SPServer

from controller.flow import Stage, Transfer
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job, MicroFlow

SERVERS = 6
BITS_PER_NS = 1
PACKET_BYTES = 8192
PACKET_NS = 65_536
STAGES = (Stage.COLLECTIVE, Stage.KV_REUSE, Stage.P2D)  # as `stage` serves them


@dataclass(frozen=True, slots=True)
class Message:
    """`packets` from server `src` to server `dst`, ready at `at_ns`. A smaller `rank` goes first."""

    rank: int
    src: int
    dst: int
    at_ns: int
    packets: int

    @property
    def id(self) -> str:
        return f"m{self.rank}"


# --- the two simulators -----------------------------------------------------------------------------


def job(policy: str, order: str) -> Job:
    """Two flows that the tests replace by their messages."""
    texts = [f'policies=["{policy}"]', "fabric=sim", f"simulation.order={order}"]
    texts += [f"topology.servers={SERVERS}", "topology.nic_gbps=1"]
    return resolve(load_scenario("two-flows", [override(text) for text in texts])).jobs[0]


JOBS = {"stage": job("stage", "levels"), "sjf": job("sjf", "exact")}
"""By levels, one for each stage; by exact order, the smaller message first."""


def fluid_finishes_ns(policy: str, messages: list[Message]) -> dict[str, int]:
    flows = tuple(
        MicroFlow(
            transfer=Transfer(
                id=message.id,
                stage=STAGES[message.rank] if policy == "stage" else Stage.P2D,
                src=message.src,
                dst=message.dst,
                size_bytes=message.packets * PACKET_BYTES,
            ),
            start_ns=message.at_ns,
        )
        for message in messages
    )
    record = FABRICS["sim"]().run(
        msgspec.structs.replace(JOBS[policy], flows=flows), progress=lambda progress: None
    )
    assert record.fidelity.faithful
    return {row.id: row.finish_ns for row in record.flows}


class Switch:
    """Puts packets into the queue of the port to their receiver."""

    def __init__(self, downlinks: dict[int, SPServer]) -> None:
        self._downlinks = downlinks

    def put(self, packet: Packet) -> None:
        self._downlinks[packet.dst].put(packet)


def ns_py_finishes_ns(messages: list[Message]) -> dict[str, float]:
    env = simpy.Environment()
    sink = PacketSink(env, rec_waits=False)
    urgency = {
        message.id: len(messages) - message.rank for message in messages
    }  # there, the larger goes first
    downlinks = {dst: SPServer(env, BITS_PER_NS, urgency) for dst in {message.dst for message in messages}}
    uplinks = {src: SPServer(env, BITS_PER_NS, urgency) for src in {message.src for message in messages}}
    for downlink in downlinks.values():
        downlink.out = sink
    for uplink in uplinks.values():
        uplink.out = Switch(downlinks)
    for message in messages:
        env.process(source(env, uplinks[message.src], message))
    env.run()
    assert dict(sink.packets_received) == {message.id: message.packets for message in messages}
    return {message.id: sink.last_arrival[message.id] for message in messages}


def source(env: simpy.Environment, uplink: SPServer, message: Message) -> simpy.events.ProcessGenerator:
    yield env.timeout(message.at_ns)
    for number in range(message.packets):
        uplink.put(
            Packet(env.now, PACKET_BYTES, number, flow_id=message.id, src=message.src, dst=message.dst)
        )


# --- cases ------------------------------------------------------------------------------------------


def drawn(seed: int, shape: str, policy: str, step_ns: int) -> list[Message]:
    """2 to 8 messages (`stage`: up to 3, one for each) of 1 to 40 packets, all of different sizes, from
    0 to 60 packet times in steps of `step_ns`; into server 0, or out of it."""
    draw = random.Random(f"{seed} {shape} {policy} {step_ns}")
    count = draw.randint(2, len(STAGES) if policy == "stage" else 8)
    sizes = sorted(draw.sample(range(1, 41), count))
    if policy == "stage":
        draw.shuffle(sizes)
    messages = []
    for rank, packets in enumerate(sizes):
        at_ns = step_ns * draw.randint(0, 60 * PACKET_NS // step_ns)
        other = draw.randint(1, SERVERS - 1)
        src, dst = (other, 0) if shape == "into one server" else (0, other)
        messages.append(Message(rank, src, dst, at_ns, packets))
    draw.shuffle(messages)
    return messages


SHAPES = pytest.mark.parametrize("shape", ["into one server", "out of one server"])
POLICIES = pytest.mark.parametrize("policy", ["stage", "sjf"])
SEEDS = pytest.mark.parametrize("seed", range(12))


def test_a_message_passes_a_larger_one() -> None:
    """30 packets from server 1 at 0 and 10 from server 2 at 8.5, both to server 0. Fluid: the large one
    until 8.5, the small one until 18.5, the large one until 40. ns.py: the small one is in the switch
    from 9.5 on, waits for a packet of the large one until 10, and ends at 20; the large one ends at
    41."""
    messages = [Message(1, 1, 0, 0, 30), Message(0, 2, 0, 17 * PACKET_NS // 2, 10)]
    assert fluid_finishes_ns("sjf", messages) == {"m0": 37 * PACKET_NS // 2, "m1": 40 * PACKET_NS}
    assert ns_py_finishes_ns(messages) == {"m0": 20 * PACKET_NS, "m1": 41 * PACKET_NS}


@POLICIES
@SEEDS
def test_out_of_one_server_between_packets_a_message_ends_a_packet_earlier(seed: int, policy: str) -> None:
    """No packet is on the uplink when a message starts, so only the switch, which stores a packet before it
    sends it, tells the models apart."""
    messages = drawn(seed, "out of one server", policy, PACKET_NS)
    fluid = fluid_finishes_ns(policy, messages)
    assert {name: end_ns + PACKET_NS for name, end_ns in fluid.items()} == ns_py_finishes_ns(messages)


@SHAPES
@POLICIES
@SEEDS
def test_messages_end_within_a_packet_time_for_each_hop(seed: int, shape: str, policy: str) -> None:
    """One for the packet that the switch has to store, one for that of a less urgent message which is on
    the wire. A message ends earlier than in the fluid only if something more urgent starts when its last
    packet can no longer be overtaken."""
    messages = alone_on_their_uplink(drawn(seed, shape, policy, PACKET_NS // 8), shape)
    fluid, packets = fluid_finishes_ns(policy, messages), ns_py_finishes_ns(messages)
    for message in messages:
        late_ns = packets[message.id] - fluid[message.id]
        assert late_ns <= 2 * PACKET_NS
        assert late_ns >= 0 or passed_on_the_wire(message, packets[message.id], messages)


def alone_on_their_uplink(messages: list[Message], shape: str) -> list[Message]:
    """Into one server, one message of each sender: two could wait for a packet at both hops."""
    if shape == "out of one server":
        return messages
    first = {message.src: message for message in reversed(messages)}
    return [message for message in messages if first[message.src] is message]


def passed_on_the_wire(message: Message, end_ns: float, messages: list[Message]) -> bool:
    """Something more urgent starts in the two packet times that the last packet takes at least."""
    return any(
        other.rank < message.rank and end_ns - 2 * PACKET_NS <= other.at_ns < end_ns for other in messages
    )
