"""The controller of the emulated fabric: switches on one side, ZeroMQ on the other.

Rules come from `RuleBook`, actions from `Dispatcher`, by way of the `Shell`. This module passes on what the
switches report (`Switches`).

Run as `python -m controller.ryu_app CONFIG`, where CONFIG is a msgpack file of `ShellConfig`.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from controller import ofcompat
from controller.dispatcher import Dispatcher
from controller.openflow import FlowMod, RuleBook, Wiring
from controller.overload import Prunings
from controller.pulse import keep_beating
from controller.shell import Shell
from controller.spec import read_spec
from controller.switches import Switches
from controller.wire import LocalHub

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


class _Switchboard:
    """The shell, and the switches whose reports it gets."""

    def __init__(self, of: ofcompat.OpenFlow, config: ShellConfig) -> None:
        rules = RuleBook(config.wiring)
        spec = read_spec(config.policy, **config.policy_defaults)
        prunings = Prunings()
        scheduler = spec.scheduler(config.wiring.port_bps, prunings.changed)
        self.switches = Switches(of, rules)
        self.shell: Shell[FlowMod] = Shell(
            Dispatcher(scheduler, rules),
            self.switches,
            LocalHub(config.uplink, config.downlinks),
            of,
            prunings=prunings,
            switches=len(config.wiring.bridges),
            implementation=f"{of.name} {of.version}",
        )

    def connected(self, datapath: Any) -> None:
        with self.shell.lock:
            self.switches.connected(datapath)

    def lost(self, datapath: Any) -> None:
        with self.shell.lock:
            self.switches.lost(datapath)

    def barrier_replied(self, datapath: Any, xid: int) -> None:
        with self.shell.lock:
            self.shell.in_force(self.switches.replied(datapath, xid))

    def rule_removed(self, datapath: Any, table: int, cookie: int) -> None:
        with self.shell.lock:
            if name := self.switches.removed(datapath, cookie):
                self.shell.trouble(
                    f"a rule of bridge {name} (table {table}) was deleted, and not by the controller"
                )


def _application(of: ofcompat.OpenFlow, board: _Switchboard) -> Any:
    """The Ryu application class: five handlers that pass events to `board`."""
    events, up = of.events, [of.handler.CONFIG_DISPATCHER, of.handler.MAIN_DISPATCHER]

    def handles(event: Any, states: Any) -> Callable[[Handler], Handler]:
        """Register a handler whose errors are told."""

        def registered(handler: Handler) -> Handler:
            @functools.wraps(handler)
            def told(self: Any, event: Any) -> None:
                with board.shell.errors_told():
                    handler(self, event)

            made: Handler = of.handler.set_ev_cls(event, states)(told)
            return made

        return registered

    class FabricController(of.base_class):  # type: ignore[misc, name-defined]
        OFP_VERSIONS = (of.ofproto.OFP_VERSION,)

        @handles(events.EventOFPSwitchFeatures, of.handler.CONFIG_DISPATCHER)
        def on_features(self, event: Any) -> None:
            board.connected(event.msg.datapath)

        @handles(events.EventOFPStateChange, of.handler.DEAD_DISPATCHER)
        def on_lost(self, event: Any) -> None:
            board.lost(event.datapath)

        @handles(events.EventOFPBarrierReply, up)
        def on_barrier(self, event: Any) -> None:
            board.barrier_replied(event.msg.datapath, event.msg.xid)

        @handles(events.EventOFPFlowRemoved, up)
        def on_removed(self, event: Any) -> None:
            board.rule_removed(event.msg.datapath, event.msg.table_id, event.msg.cookie)

        @handles(events.EventOFPErrorMsg, up)
        def on_error(self, event: Any) -> None:
            board.shell.trouble(
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
    board = _Switchboard(of, config)
    manager = of.app_manager.AppManager.get_instance()
    manager.load_apps([of.handler_app])
    application = _application(of, board)
    manager.applications_cls[application.__name__] = application
    services = manager.instantiate_apps(**manager.create_contexts())
    services.append(of.hub.spawn(board.shell.serve))
    services.append(of.hub.spawn(keep_beating, board.shell.pulse, of.hub.sleep))
    of.hub.joinall(services)


if __name__ == "__main__":
    main(sys.argv[1])
