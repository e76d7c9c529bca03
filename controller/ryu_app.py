"""The shell around the controller: switches on one side, ZeroMQ on the other.

It decides nothing. Rules come from `RuleBook`, actions from `Dispatcher`. This module reads messages from
ZeroMQ, carries out the dispatcher's actions and passes on what the switches report (`Switches`).

Run as `python -m controller.ryu_app CONFIG`, where CONFIG is a msgpack file of `ShellConfig`.
"""

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import zmq

from controller import ofcompat
from controller.dispatcher import Action, Dispatcher, Enforce, Grant
from controller.openflow import RuleBook, Wiring
from controller.overload import Prunings
from controller.permit_meter import PermitMeter
from controller.policies.fault import policy_fault
from controller.protocol import (
    AskFlows,
    AskLog,
    AskSending,
    AskStatus,
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
from controller.pulse import Pulse, keep_beating
from controller.spec import read_spec
from controller.switches import Switches
from controller.units import NS_PER_S

COORDINATOR = "coordinator"
"""Name of the downlink to the coordinator: `Status`, `Log`, `BatchKnown` and `Trouble` go there."""


Handler = Callable[[Any, Any], None]
"""A method of the Ryu application that takes an event."""


class ShellConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the controller process is started with.

    `uplink` and `downlinks` are ZeroMQ addresses. Workers and the coordinator push to `uplink`; messages to
    rank 3 are pushed to `downlinks["3"]`. `policy` is a spec (see `controller.spec`), and `policy_defaults`
    are the scenario's options for it.
    """

    wiring: Wiring
    policy: str
    policy_defaults: dict[str, int | float | str | bool]
    uplink: str
    downlinks: dict[str, str]
    openflow_host: str
    openflow_port: int


class _Shell:
    """The ZeroMQ side: reads messages, gives them to the dispatcher and carries out its actions."""

    def __init__(self, of: ofcompat.OpenFlow, config: ShellConfig) -> None:
        rules = RuleBook(config.wiring)
        spec = read_spec(config.policy, **config.policy_defaults)
        self._prunings = Prunings()
        self._permits = PermitMeter()
        scheduler = spec.scheduler(config.wiring.port_bps, self._prunings.changed)
        self._of = of
        self._dispatcher = Dispatcher(scheduler, rules)
        self._expected = len(config.wiring.bridges)
        self.switches = Switches(of, rules)
        self.lock = threading.RLock()
        self.pulse = Pulse(time.monotonic_ns())
        self._zero_wall_ns: int | None = None
        self._dilation = 1.0
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._uplink = context.socket(zmq.PULL)
        self._uplink.set_hwm(0)
        self._uplink.bind(config.uplink)
        self._downlinks = {}
        for name, endpoint in config.downlinks.items():
            socket = context.socket(zmq.PUSH)
            socket.set_hwm(0)
            socket.connect(endpoint)  # queues even before the other end is there
            self._downlinks[name] = socket

    def _now_ns(self, wall_ns: int) -> int:
        if self._zero_wall_ns is None:
            return 0
        return round((wall_ns - self._zero_wall_ns) / self._dilation)

    def tell(self, name: str, message: Down) -> None:
        self._downlinks[name].send(encode(message), zmq.NOBLOCK)

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
            frame = self._uplink.recv(zmq.NOBLOCK)
        except zmq.Again:
            self._tick_if_due()
            # ZeroMQ's descriptor is edge-triggered: only sleep when nothing is left to read.
            if not int(self._uplink.EVENTS) & zmq.POLLIN:
                self._of.wait_readable(int(self._uplink.FD), self._sleep_s())
            return
        with self.lock:
            self._handle(decode_up(frame))
        self._tick_if_due()
        if self.switches.waiting:
            # Rule changes and their answers must not wait until a burst of submissions has been read.
            self._of.let_others_run()

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
                self.switches.send(dispatcher.lane_up(message), None)
            case ProbeUp():
                self.switches.send(dispatcher.probe_up(message), None)
            case GroupUp():
                self.switches.send(dispatcher.group_up(message), None)
            case ClockStart():
                self.pulse.restart(wall_ns)
                self._zero_wall_ns = message.zero_wall_ns
                self._dilation = message.time_dilation
            case AskLog():
                self.tell(COORDINATOR, self._log())
            case AskFlows():
                self.tell(COORDINATOR, self._flows())
            case AskSending():
                sending = Sending(flows=tuple(self._dispatcher.sending()), away=self.switches.away)
                self.tell(COORDINATOR, sending)
            case AskStatus():
                self.tell(COORDINATOR, self._status())

    def barrier_replied(self, datapath: Any, xid: int) -> None:
        with self.lock:
            for lane, level in self.switches.replied(datapath, xid):
                self._carry_out(self._dispatcher.confirmed(lane, level))

    def rule_removed(self, datapath: Any, table: int) -> None:
        with self.lock:
            if name := self.switches.removed(datapath):
                self.trouble(
                    f"a rule of bridge {name} (table {table}) was deleted, and not by the controller"
                )

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Enforce(lane=lane, level=level, mods=mods):
                    self.switches.send(list(mods), (lane, level))
                case Grant(rank=rank, permit=permit):
                    self._permits.permitted(permit.flow, permit.lane_wait_wall_ns, time.monotonic_ns())
                    self.tell(str(rank), permit)

    def _status(self) -> Status:
        return Status(
            ready=self.switches.ready == self._expected,
            switches=self.switches.ready,
            lanes=self._dispatcher.lanes,
            groups=self._dispatcher.groups,
            implementation=f"{self._of.name} {self._of.version}",
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
            decisions=tuple(self._dispatcher.decisions),
            paths=tuple(self._dispatcher.paths),
            pruned=self._prunings.times,
            ended_pruned=tuple(sorted(self._prunings.at_their_end)),
            flow_mods=self.switches.flow_mods,
            barriers=self.switches.barriers,
            longest_pause=self.pulse.longest(time.monotonic_ns()),
        )


def _application(of: ofcompat.OpenFlow, shell: _Shell) -> Any:
    """The Ryu application class: five handlers that pass events to `shell`."""
    events, up = of.events, [of.handler.CONFIG_DISPATCHER, of.handler.MAIN_DISPATCHER]

    def handles(event: Any, states: Any) -> Callable[[Handler], Handler]:
        """Register a handler whose errors are told."""

        def registered(handler: Handler) -> Handler:
            @functools.wraps(handler)
            def told(self: Any, event: Any) -> None:
                with shell.errors_told():
                    handler(self, event)

            made: Handler = of.handler.set_ev_cls(event, states)(told)
            return made

        return registered

    class FabricController(of.base_class):  # type: ignore[misc, name-defined]
        OFP_VERSIONS = (of.ofproto.OFP_VERSION,)

        @handles(events.EventOFPSwitchFeatures, of.handler.CONFIG_DISPATCHER)
        def on_features(self, event: Any) -> None:
            with shell.lock:
                shell.switches.connected(event.msg.datapath)

        @handles(events.EventOFPStateChange, of.handler.DEAD_DISPATCHER)
        def on_lost(self, event: Any) -> None:
            with shell.lock:
                shell.switches.lost(event.datapath)

        @handles(events.EventOFPBarrierReply, up)
        def on_barrier(self, event: Any) -> None:
            shell.barrier_replied(event.msg.datapath, event.msg.xid)

        @handles(events.EventOFPFlowRemoved, up)
        def on_removed(self, event: Any) -> None:
            shell.rule_removed(event.msg.datapath, event.msg.table_id)

        @handles(events.EventOFPErrorMsg, up)
        def on_error(self, event: Any) -> None:
            shell.trouble(
                f"switch {event.msg.datapath.id:#x} refused a message:"
                f" type {event.msg.type}, code {event.msg.code}"
            )

    # Ryu finds an application's handlers by the module that its class names.
    FabricController.__module__ = __name__
    return FabricController


def main(path: str) -> None:
    of = ofcompat.load()
    with open(path, "rb") as file:
        config = msgspec.msgpack.decode(file.read(), type=ShellConfig)
    of.configure(host=config.openflow_host, port=config.openflow_port)
    shell = _Shell(of, config)
    manager = of.app_manager.AppManager.get_instance()
    manager.load_apps([of.handler_app])
    application = _application(of, shell)
    manager.applications_cls[application.__name__] = application
    services = manager.instantiate_apps(**manager.create_contexts())
    services.append(of.hub.spawn(shell.serve))
    services.append(of.hub.spawn(keep_beating, shell.pulse, of.hub.sleep))
    of.hub.joinall(services)


if __name__ == "__main__":
    main(sys.argv[1])
