"""Messages between workers, the controller and the coordinator of a run, over ZeroMQ.

Every message is one msgpack frame of a tagged struct. `*_wall_ns` is CLOCK_MONOTONIC of the
machine, which all processes of an emulated run share; plain `*_ns` is model time.
"""

import msgspec

from controller.flow import Batch, Decision, Level, Stage, Transfer
from controller.pulse import Pause


class TcpConnection(msgspec.Struct, frozen=True, kw_only=True):
    """One TCP connection, seen from its sending end: IP addresses and the kernel's port numbers."""

    src_ip: str
    dst_ip: str
    src_port: int
    dst_port: int


class LaneUp(msgspec.Struct, frozen=True, kw_only=True, tag="lane_up"):
    """A lane is connected. It carries one flow at a time from rank `src` to rank `dst`.

    `connections` is empty if both ranks are on one server: their bytes never reach a switch.
    """

    lane: str
    stage: Stage
    src: int
    dst: int
    src_server: str
    dst_server: str
    connections: tuple[TcpConnection, ...]


class ProbeUp(msgspec.Struct, frozen=True, kw_only=True, tag="probe_up"):
    """A lane that measures a path before the clock starts. The scheduler knows nothing of it.

    Its data gets the level of `fair`, so that acknowledgements overtake it as in a run.
    """

    name: str
    src: int
    src_server: str
    dst_server: str
    connections: tuple[TcpConnection, ...]


class GroupUp(msgspec.Struct, frozen=True, kw_only=True, tag="group_up"):
    """A rank's side of a process group: its peers' servers and its connections to them, by peer rank."""

    group: str
    rank: int
    server: str
    peers: dict[int, str]
    connections: dict[int, tuple[TcpConnection, ...]]


class ClockStart(msgspec.Struct, frozen=True, kw_only=True, tag="clock"):
    """Model time 0 is `zero_wall_ns`; a model second takes `time_dilation` wall seconds."""

    zero_wall_ns: int
    time_dilation: float


class BatchStarted(msgspec.Struct, frozen=True, kw_only=True, tag="batch"):
    """A batch is about to be sent to its `ranks`, which will report their layers.

    The controller answers with `BatchKnown`.
    """

    batch: Batch
    ranks: tuple[int, ...]


class BatchKnown(msgspec.Struct, frozen=True, kw_only=True, tag="batch_known"):
    batch: str


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag="submit"):
    """Ask to send a message from one rank to another; nothing is sent before the `Permit`."""

    transfer: Transfer
    sent_wall_ns: int


class SubmitShare(msgspec.Struct, frozen=True, kw_only=True, tag="share"):
    """Ask to start a rank's share of a collective: `peer_bytes[r]` model bytes to each peer rank r."""

    share: Transfer
    group: str
    peer_bytes: dict[int, int]
    sent_wall_ns: int


class LayerAdvanced(msgspec.Struct, frozen=True, kw_only=True, tag="layer"):
    """A rank begins `layer` of a batch. `layer` is the number of layers when the rank's compute is over."""

    batch: str
    rank: int
    layer: int


class FlowProgress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    flow: str
    bytes_left: int


class Completion(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The last byte is at the receiver (for a share: the collective has ended on this rank)."""

    flow: str


class Permit(msgspec.Struct, frozen=True, kw_only=True, tag="permit"):
    """Send the flow: its level is in force on every connection that it will use.

    `lane` is empty for a share of a collective. `lane_wait_wall_ns` is the time from the flow's submission
    until its lane was free. It is not part of the permit latency.
    """

    flow: str
    lane: str
    level: Level
    lane_wait_wall_ns: int


class Mark(msgspec.Struct, frozen=True, kw_only=True, tag="mark"):
    """Mark the packets of these connections with `dscp` from now on: `level` is to be in force on `lane`.

    The rank that sends on them answers with `Marked`, unless `lane` is empty. Only where the ends of
    connections mark packets, and not the switches.
    """

    lane: str
    level: Level
    dscp: int
    connections: tuple[TcpConnection, ...]


class Marked(msgspec.Struct, frozen=True, kw_only=True, tag="marked"):
    """The packets that a rank sends on the connections of `lane` have the mark of `level` from now on."""

    lane: str
    level: Level


class AskStatus(msgspec.Struct, frozen=True, kw_only=True, tag="ask_status"):
    """The coordinator asks for a `Status`."""


class AskLog(msgspec.Struct, frozen=True, kw_only=True, tag="ask_log"):
    """The coordinator asks for the last `Logged` and the `Log` at the end of a run."""


class AskFlows(msgspec.Struct, frozen=True, kw_only=True, tag="ask_flows"):
    """The coordinator asks for the `Logged` since it asked last, and for the `FlowCounts` of this moment.

    It asks often, so that what was logged never fills the controller's memory.
    """


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """How far the set-up is: switches that have their base rules, lanes, and ranks' sides of groups.

    `ready` says that every switch of the wiring has its base rules. `implementation` is Ryu or os-ken,
    with its version.
    """

    ready: bool
    switches: int
    lanes: int
    groups: int
    implementation: str


class FlowCounts(msgspec.Struct, frozen=True, kw_only=True, tag="flows"):
    """What flows do now, for people who watch the run; nothing depends on it.

    By level: flows that wait for a lane, and those that send. `changing` have a lane whose level is on its
    way to the switches. `permits` were given so far; `latencies_wall_ms` are those since the last answer.
    """

    waiting: tuple[int, ...]
    changing: int
    sending: tuple[int, ...]
    permits: int
    latencies_wall_ms: tuple[float, ...]


class AskSending(msgspec.Struct, frozen=True, kw_only=True, tag="ask_sending"):
    """The coordinator asks for `Sending`: the run has stalled."""


class LoggedPath(msgspec.Struct, frozen=True, kw_only=True):
    """The ports that a flow crossed. `sizes` are the model bytes that a share of a collective put on each of
    them; empty if it was all bytes of the flow on each."""

    flow: str
    ports: tuple[str, ...]
    sizes: tuple[int, ...] = ()


class Sending(msgspec.Struct, frozen=True, kw_only=True, tag="sending"):
    """The flows that have their permits and have not arrived, with the ports that they cross.

    `away` are the bridges that are not connected, or have not confirmed their rules.
    """

    flows: tuple[LoggedPath, ...]
    away: tuple[str, ...] = ()


class Logged(msgspec.Struct, frozen=True, kw_only=True, tag="logged"):
    """What the controller has done since its last `Logged`. Flows in `ended` have arrived."""

    decisions: tuple[Decision, ...]
    paths: tuple[LoggedPath, ...]
    ended: tuple[str, ...]


class Away(msgspec.Struct, frozen=True, kw_only=True):
    """The controller was without a bridge: its connection was lost until its rules were confirmed again.

    Times are CLOCK_MONOTONIC; `end_wall_ns` is None while it lasts.
    """

    bridge: str
    begin_wall_ns: int
    end_wall_ns: int | None


class Log(msgspec.Struct, frozen=True, kw_only=True, tag="log"):
    """What the controller did in a run, beside what it has `Logged`.

    `pruned` is how often each request was pruned. Requests in `ended_pruned` were not freed again.
    `pauses` are the longest ones of the controller since the clock started, the longest first. `away` is when
    it was without a bridge.
    """

    pruned: dict[str, int]
    ended_pruned: tuple[str, ...]
    flow_mods: int
    barriers: int
    pauses: tuple[Pause, ...]
    away: tuple[Away, ...] = ()


class Trouble(msgspec.Struct, frozen=True, kw_only=True, tag="trouble"):
    """A failure that ends the run, in words."""

    message: str


Up = (
    LaneUp
    | ProbeUp
    | GroupUp
    | ClockStart
    | BatchStarted
    | Submit
    | SubmitShare
    | LayerAdvanced
    | FlowProgress
    | Completion
    | Marked
    | AskStatus
    | AskLog
    | AskFlows
    | AskSending
)
Down = Permit | Mark | BatchKnown | Status | FlowCounts | Sending | Logged | Log | Trouble

encode = msgspec.msgpack.Encoder().encode
decode_up = msgspec.msgpack.Decoder(Up).decode
decode_down = msgspec.msgpack.Decoder(Down).decode
