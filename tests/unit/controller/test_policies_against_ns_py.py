"""The exact network against another simulator: ns.py, which sends packets and never interrupts one.

One link of 1 Gb/s, packets of 8,192 B: one packet takes 65,536 ns. Both programs run in nanoseconds.
Each class is one message whose packets are all there at its arrival. The classes are the levels that
`stage` gives: S2 over S1 over S3.
"""

from dataclasses import dataclass
from fractions import Fraction

import pytest
import simpy
from fluid import Arrival, run
from hypothesis import given, settings
from hypothesis import strategies as st
from ns.packet.packet import Packet
from ns.packet.sink import PacketSink
from ns.scheduler.sp import SPServer

from controller.flow import Flow, Stage
from controller.policies import make_policy
from controller.scheduler import Scheduler

LINK = "h1->s1"
BPS = 1_000_000_000
BITS_PER_NS = 1
PACKET_BYTES = 8192
PACKET_NS = 65_536
CLASSES = (Stage.COLLECTIVE, Stage.KV_REUSE, Stage.P2D)  # highest first
NS_PY_PRIORITIES = {"S2": 3, "S1": 2, "S3": 1}  # there, the larger number goes first


@dataclass(frozen=True, slots=True)
class Message:
    """`packets` of a class, all ready at `at_ns`."""

    stage: Stage
    at_ns: int
    packets: int


def fluid_finishes_ns(messages: list[Message], *, exact: bool = False) -> dict[Stage, Fraction]:
    scheduler = Scheduler(make_policy("stage"), ports={LINK: BPS}, exact=exact)
    arrivals = [Arrival(message.at_ns, flow_of(message)) for message in messages]
    finish_ns = run(scheduler, {LINK: BPS}, arrivals).finish_ns
    return {message.stage: finish_ns[message.stage.value] for message in messages}


def flow_of(message: Message) -> Flow:
    size = message.packets * PACKET_BYTES
    return Flow(id=message.stage.value, stage=message.stage, size_bytes=size, load={LINK: size})


def ns_py_finishes_ns(messages: list[Message]) -> dict[Stage, float]:
    env = simpy.Environment()
    sink = PacketSink(env, rec_waits=False)
    link = SPServer(env, BITS_PER_NS, NS_PY_PRIORITIES)
    link.out = sink
    for message in messages:
        env.process(source(env, link, message))
    env.run()
    assert dict(sink.packets_received) == {message.stage.value: message.packets for message in messages}
    return {message.stage: sink.last_arrival[message.stage.value] for message in messages}


def source(env: simpy.Environment, link: SPServer, message: Message) -> simpy.events.ProcessGenerator:
    yield env.timeout(message.at_ns)
    for number in range(message.packets):
        link.put(Packet(env.now, PACKET_BYTES, number, flow_id=message.stage.value))


def test_two_classes_of_3000_packets() -> None:
    """24.576 MB each at 1 Gb/s: 0.196608 s, and as much again for the low class."""
    messages = [Message(Stage.P2D, 0, 3000), Message(Stage.COLLECTIVE, 0, 3000)]
    expected = {Stage.COLLECTIVE: 196_608_000, Stage.P2D: 393_216_000}
    assert fluid_finishes_ns(messages) == expected
    assert ns_py_finishes_ns(messages) == expected


def test_a_high_message_arrives_in_the_middle_of_a_low_one() -> None:
    """100 low packets from 0; 10 high ones at 30.25 packet times. Fluid: high until 40.25, low until
    110. ns.py ends the packet it is at first, at 31: high until 41, low until 110 as well."""
    messages = [Message(Stage.P2D, 0, 100), Message(Stage.COLLECTIVE, 30 * PACKET_NS + PACKET_NS // 4, 10)]
    fluid, packets = fluid_finishes_ns(messages), ns_py_finishes_ns(messages)
    assert fluid == {Stage.COLLECTIVE: Fraction(161, 4) * PACKET_NS, Stage.P2D: 110 * PACKET_NS}
    assert packets == {Stage.COLLECTIVE: 41 * PACKET_NS, Stage.P2D: 110 * PACKET_NS}


def test_a_packet_on_the_wire_is_where_the_two_models_part() -> None:
    """One low packet from 0, ten high ones at half of it. Fluid: high 0.5 to 10.5, then the other
    half of the low one: 11. ns.py ends the low packet first: 1, and high 1 to 11. So a message whose
    last packet is on the wire can end earlier than in the fluid model, by all that arrived above it."""
    messages = [Message(Stage.P2D, 0, 1), Message(Stage.COLLECTIVE, PACKET_NS // 2, 10)]
    fluid, packets = fluid_finishes_ns(messages), ns_py_finishes_ns(messages)
    assert fluid == {Stage.COLLECTIVE: Fraction(21, 2) * PACKET_NS, Stage.P2D: 11 * PACKET_NS}
    assert packets == {Stage.COLLECTIVE: 11 * PACKET_NS, Stage.P2D: PACKET_NS}


@st.composite
def three_classes(draw: st.DrawFn, *, step_ns: int) -> list[Message]:
    """One message per class, 1 to 40 packets, from 0 to 60 packet times in steps of `step_ns`."""
    messages = [
        Message(
            stage,
            step_ns * draw(st.integers(0, 60 * PACKET_NS // step_ns), label=f"{stage.value} at"),
            draw(st.integers(1, 40), label=f"{stage.value} packets"),
        )
        for stage in CLASSES
    ]
    return draw(st.permutations(messages))


@pytest.mark.parametrize("exact", [False, True], ids=["levels", "exact"])
@settings(max_examples=100, deadline=None)
@given(messages=three_classes(step_ns=PACKET_NS))
def test_three_classes_that_arrive_between_packets_end_at_the_same_nanosecond(
    exact: bool, messages: list[Message]
) -> None:
    """No packet is ever on the wire when a message arrives, so the two models are one."""
    assert fluid_finishes_ns(messages, exact=exact) == ns_py_finishes_ns(messages)


@settings(max_examples=200, deadline=None)
@given(messages=three_classes(step_ns=PACKET_NS // 8))
def test_three_classes_that_arrive_at_any_time_end_within_one_packet(messages: list[Message]) -> None:
    """A message waits for at most one lower packet, and ends earlier only with its last packet on the
    wire while something above it arrives."""
    fluid, packets = fluid_finishes_ns(messages), ns_py_finishes_ns(messages)
    for message in messages:
        late_ns = packets[message.stage] - fluid[message.stage]
        assert late_ns <= PACKET_NS
        assert late_ns >= 0 or passed_on_the_wire(message, packets[message.stage], messages)


def passed_on_the_wire(message: Message, end_ns: float, messages: list[Message]) -> bool:
    above = CLASSES[: CLASSES.index(message.stage)]
    return any(other.stage in above and end_ns - PACKET_NS < other.at_ns < end_ns for other in messages)
