"""The controller around the dispatcher: messages in, permits and changes out; the same on every network.

It decides nothing. Actions come from the `Dispatcher`. This module reads messages, carries out actions, and
leaves it to an `Enforcer` to put levels in force: in OpenFlow switches (`controller.switches`), or at the
ends of connections (`controller.markers`).
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
import zmq

from controller.dispatcher import Action, Dispatcher, Enforce, Grant
from controller.flow import Level
from controller.overload import Prunings
from controller.permit_meter import PermitMeter
from controller.policies.fault import policy_fault
from controller.protocol import (
    AskFlows,
    AskLog,
    AskSending,
    AskStatus,
    Away,
    BatchKnown,
    BatchStarted,
    ClockStart,
    Completion,
    Down,
    FlowCounts,
    FlowProgress,
    GroupUp,
    LaneUp,
    LayerAdvanced,
    Log,
    Marked,
    ProbeUp,
    Sending,
    Status,
    Submit,
    SubmitShare,
    Trouble,
    Up,
    decode_up,
    encode,
)
from controller.pulse import Pulse
from controller.units import NS_PER_S
from controller.wire import Hub

M = TypeVar("M")
"""A change that puts a level in force: of a switch's rules, or of a connection's mark."""

M_contra = TypeVar("M_contra", contravariant=True)

COORDINATOR = "coordinator"
"""Name of the coordinator, the peer to which all goes but permits and marks."""

Token = tuple[str, Level]
"""A lane and a level: it stands for the changes that put the level in force there."""


class Enforcer(Protocol[M_contra]):
    """Puts levels in force. The shell hears of it with `Shell.in_force`, or by what `marked` returns."""

    flow_mods: int
    barriers: int

    @property
    def ready(self) -> int:
        """How many switches have the rules that they should have."""
        ...

    @property
    def away(self) -> tuple[str, ...]: ...

    @property
    def outages(self) -> Sequence[Away]:
        """When this was without a switch that it had already."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether a level is on its way, so that a flow may be waiting for the answer."""
        ...

    def send(self, mods: Sequence[M_contra], token: Token | None) -> None: ...

    def marked(self, message: Marked) -> list[Token]:
        """A rank has marked connections. Returns the tokens whose changes have now all been made."""
        ...


class Waiting(Protocol):
    """How this process waits: with threads of the system, or with green ones."""

    def wait_readable(self, fd: int, timeout_s: float) -> None: ...

    def let_others_run(self) -> None: ...


class Shell(Generic[M]):
    """Reads messages from `hub`, gives them to the dispatcher and carries out its actions.

    `switches` is how many switches the enforcer should have, `implementation` what puts levels in force.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[M],
        enforcer: Enforcer[M],
        hub: Hub,
        waiting: Waiting,
        *,
        prunings: Prunings,
        switches: int,
        implementation: str,
    ) -> None:
        self._dispatcher = dispatcher
        self._enforcer = enforcer
        self._hub = hub
        self._waiting = waiting
        self._prunings = prunings
        self._permits = PermitMeter()
        self._switches = switches
        self._implementation = implementation
        self.lock = threading.RLock()
        self.pulse = Pulse(time.monotonic_ns())
        self._zero_wall_ns: int | None = None
        self._dilation = 1.0

    def _now_ns(self, wall_ns: int) -> int:
        if self._zero_wall_ns is None:
            return 0
        return round((wall_ns - self._zero_wall_ns) / self._dilation)

    def tell(self, name: str, message: Down) -> None:
        self._hub.send(name, encode(message))

    def trouble(self, message: str) -> None:
        with self.lock:
            self.tell(COORDINATOR, Trouble(message=message))

    @contextlib.contextmanager
    def errors_told(self) -> Iterator[None]:
        """Report an error to the coordinator, which ends the run. Ryu only logs an error in a handler."""
        try:
            yield
        except Exception as error:
            self.trouble(policy_fault(error) or f"controller: {type(error).__name__}: {error}")

    def serve(self) -> None:
        """Read messages forever."""
        while True:
            with self.errors_told():
                self._serve_once()

    def _serve_once(self) -> None:
        try:
            frame = self._hub.receive()
        except zmq.Again:
            self._tick_if_due()
            # ZeroMQ's descriptor is edge-triggered: only sleep when nothing is left to read.
            if not int(self._hub.socket.EVENTS) & zmq.POLLIN:
                self._waiting.wait_readable(int(self._hub.socket.FD), self._sleep_s())
            return
        try:
            message = decode_up(frame)
        except msgspec.MsgspecError as error:
            who = self._hub.sender or "a peer"
            raise ValueError(f"{who} has sent a message that cannot be read: {error}") from None
        with self.lock:
            self._handle(message)
        self._tick_if_due()
        if self._enforcer.waiting:
            # Rule changes and their answers must not wait until a burst of submissions has been read.
            self._waiting.let_others_run()

    def _sleep_s(self) -> float:
        due = self._dispatcher.next_tick_ns()
        if due is None or self._zero_wall_ns is None:
            return 0.1
        wall_ns = time.monotonic_ns()
        return min(0.1, max(0.0, (due - self._now_ns(wall_ns)) * self._dilation / NS_PER_S))

    def _tick_if_due(self) -> None:
        due = self._dispatcher.next_tick_ns()
        if due is not None and self._zero_wall_ns is not None:
            now_ns = self._now_ns(time.monotonic_ns())
            if now_ns >= due:
                with self.lock:
                    self._carry_out(self._dispatcher.tick(now_ns))

    def _handle(self, message: Up) -> None:
        wall_ns = time.monotonic_ns()
        now_ns = self._now_ns(wall_ns)
        dispatcher = self._dispatcher
        match message:
            case Submit():
                self._permits.submitted(message.transfer.id, message.sent_wall_ns)
                self._carry_out(dispatcher.submit(now_ns, message))
            case SubmitShare():
                self._permits.submitted(message.share.id, message.sent_wall_ns)
                self._carry_out(dispatcher.submit_share(now_ns, message))
            case Completion():
                self._carry_out(dispatcher.completed(now_ns, wall_ns, message.flow))
            case LayerAdvanced():
                self._carry_out(dispatcher.layer_advanced(now_ns, message.batch, message.rank, message.layer))
            case FlowProgress():
                self._carry_out(dispatcher.progress(now_ns, message.flow, message.bytes_left))
            case BatchStarted():
                self._carry_out(dispatcher.batch_started(now_ns, message.batch, message.ranks))
                self.tell(COORDINATOR, BatchKnown(batch=message.batch.id))
            case LaneUp():
                self._enforcer.send(dispatcher.lane_up(message), None)
            case ProbeUp():
                self._enforcer.send(dispatcher.probe_up(message), None)
            case GroupUp():
                self._enforcer.send(dispatcher.group_up(message), None)
            case ClockStart():
                self.pulse.restart(wall_ns)
                self._zero_wall_ns = message.zero_wall_ns
                self._dilation = message.time_dilation
            case Marked():
                self.in_force(self._enforcer.marked(message))
            case AskLog():
                self.tell(COORDINATOR, self._dispatcher.logged())
                self.tell(COORDINATOR, self._log())
            case AskFlows():
                self.tell(COORDINATOR, self._dispatcher.logged())
                self.tell(COORDINATOR, self._flows())
            case AskSending():
                sending = Sending(flows=tuple(self._dispatcher.sending()), away=self._enforcer.away)
                self.tell(COORDINATOR, sending)
            case AskStatus():
                self.tell(COORDINATOR, self._status())

    def in_force(self, tokens: Iterable[Token]) -> None:
        """The changes that these tokens stand for have been made."""
        for lane, level in tokens:
            self._carry_out(self._dispatcher.confirmed(lane, level))

    def _carry_out(self, actions: list[Action[M]]) -> None:
        for action in actions:
            match action:
                case Enforce(lane=lane, level=level, mods=mods):
                    self._enforcer.send(mods, (lane, level))
                case Grant(rank=rank, permit=permit):
                    self._permits.permitted(permit.flow, permit.lane_wait_wall_ns, time.monotonic_ns())
                    self.tell(str(rank), permit)

    def _status(self) -> Status:
        return Status(
            ready=self._enforcer.ready == self._switches,
            switches=self._enforcer.ready,
            lanes=self._dispatcher.lanes,
            groups=self._dispatcher.groups,
            implementation=self._implementation,
        )

    def _flows(self) -> FlowCounts:
        sending, changing = self._dispatcher.on_lanes()
        return FlowCounts(
            waiting=self._dispatcher.waiting(),
            changing=changing,
            sending=sending,
            permits=self._permits.permits,
            latencies_wall_ms=self._permits.taken_ms(),
        )

    def _log(self) -> Log:
        return Log(
            pruned=self._prunings.times,
            ended_pruned=tuple(sorted(self._prunings.at_their_end)),
            flow_mods=self._enforcer.flow_mods,
            barriers=self._enforcer.barriers,
            pauses=self.pulse.longest_ones(time.monotonic_ns()),
            away=tuple(self._enforcer.outages),
        )
