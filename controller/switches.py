"""The connected OpenFlow switches: each set of rule changes goes out with a barrier behind it.

A switch answers a barrier when it has made the changes before it. A level is in force when every switch
with a change for it has answered.
"""

import time
from collections.abc import Sequence
from typing import Any

from controller import ofcompat
from controller.flow import Level
from controller.openflow import Command, FlowMod, Match, RuleBook, per_switch
from controller.protocol import Away, Marked


class Switches:
    """Sends rule changes to switches, and keeps track of the barriers that are not answered yet.

    A token, a lane and a level, stands for changes at one or more switches.
    """

    def __init__(self, of: ofcompat.OpenFlow, rules: RuleBook) -> None:
        self._of = of
        self._rules = rules
        self._names = {bridge.dpid: name for name, bridge in rules.wiring.bridges.items()}
        self._connected: dict[str, Any] = {}
        self._ready: set[str] = set()
        self._times_connected = dict.fromkeys(self._names.values(), 0)
        self._barriers: dict[str, dict[int, list[tuple[str, Level]]]] = {}
        self._open: dict[tuple[str, Level], int] = {}
        self._encoded: dict[FlowMod, bytes] = {}
        self._lost_wall_ns: dict[str, int] = {}
        self._outages: list[Away] = []
        self.flow_mods = 0
        self.barriers = 0

    @property
    def ready(self) -> int:
        return len(self._ready)

    @property
    def away(self) -> tuple[str, ...]:
        """The switches that are not connected, or have not confirmed the rules that they should have."""
        return tuple(name for name in self._rules.wiring.bridges if name not in self._ready)

    @property
    def outages(self) -> list[Away]:
        """When a switch that had been connected was not, or had not confirmed its rules again."""
        lasting = [
            Away(bridge=name, begin_wall_ns=since_ns, end_wall_ns=None)
            for name, since_ns in self._lost_wall_ns.items()
        ]
        return [*self._outages, *lasting]

    @property
    def waiting(self) -> bool:
        """Whether a level is on its way to a switch, so that a flow may be waiting for the answer."""
        return bool(self._open)

    def connected(self, datapath: Any) -> None:
        """A switch has connected, for the first time or again. It gets every rule that it should have.

        The barrier behind these rules also stands for those that were lost with the old connection. Raises
        `ValueError` for an unknown datapath id.
        """
        name = self._names.get(datapath.id)
        if name is None:
            raise ValueError(f"a switch with the unknown datapath id {datapath.id:#x} connected")
        self._connected[name] = datapath
        self._times_connected[name] += 1
        self._encoded = {mod: raw for mod, raw in self._encoded.items() if mod.switch != name}
        self._away(name)
        orphans = [t for tokens in self._barriers.pop(name, {}).values() for t in tokens]
        self._send(name, self._rules.everything(name), orphans)

    def lost(self, datapath: Any) -> None:
        name = self._names.get(datapath.id)
        if name is not None and self._connected.get(name) is datapath:
            del self._connected[name]
            self._away(name)

    def _away(self, name: str) -> None:
        if name in self._ready:
            self._ready.discard(name)
            self._lost_wall_ns.setdefault(name, time.monotonic_ns())

    def removed(self, datapath: Any, cookie: int) -> str:
        """A switch has deleted a rule. Return the switch's name if the controller has not asked for that.

        It asks when a switch connects: then all older rules go. Open vSwitch may tell of these only after it
        has answered the barrier, so the cookie says how old a rule is.
        """
        name = self._names[datapath.id]
        ours = self._connected.get(name) is not datapath or cookie != self._times_connected[name]
        return "" if ours else name

    def send(self, mods: Sequence[FlowMod], token: tuple[str, Level] | None) -> None:
        """Send changes, with one barrier per switch. A switch that is away gets them when it connects."""
        for name, changes in per_switch(mods).items():
            if token is not None:
                self._open[token] = self._open.get(token, 0) + 1
            tokens = [] if token is None else [token]
            if name in self._connected:
                self._send(name, changes, tokens)
            else:
                self._barriers.setdefault(name, {}).setdefault(-1, []).extend(tokens)

    def marked(self, message: Marked) -> list[tuple[str, Level]]:
        """Raises `ValueError`: nobody but the switches marks packets."""
        raise ValueError(f"lane {message.lane!r} is said to be marked, but switches mark its packets")

    def replied(self, datapath: Any, xid: int) -> list[tuple[str, Level]]:
        """A switch has answered a barrier. Returns the tokens that all their switches have now answered."""
        name = self._names[datapath.id]
        if self._connected.get(name) is not datapath:
            return []
        tokens = self._barriers.get(name, {}).pop(xid, None)
        if tokens is None:
            return []
        self._ready.add(name)
        since_ns = self._lost_wall_ns.pop(name, None)
        if since_ns is not None:
            now_ns = time.monotonic_ns()
            self._outages.append(Away(bridge=name, begin_wall_ns=since_ns, end_wall_ns=now_ns))
        done = []
        for token in tokens:
            self._open[token] -= 1
            if self._open[token] == 0:
                del self._open[token]
                done.append(token)
        return done

    def _send(self, name: str, mods: list[FlowMod], tokens: list[tuple[str, Level]]) -> None:
        datapath = self._connected[name]
        barrier = datapath.ofproto_parser.OFPBarrierRequest(datapath)
        datapath.set_xid(barrier)
        barrier.serialize()
        self._barriers.setdefault(name, {})[barrier.xid] = tokens
        datapath.send(b"".join([*(self._bytes(datapath, mod) for mod in mods), bytes(barrier.buf)]))
        self.flow_mods += len(mods)
        self.barriers += 1

    def _bytes(self, datapath: Any, mod: FlowMod) -> bytes:
        """`mod` as bytes on the wire.

        They are cached: a lane takes the same few levels again and again, and Ryu needs a quarter of a
        millisecond to serialise one. All have transaction id 0, because only barriers are waited for.
        """
        encoded = self._encoded.get(mod)
        if encoded is None:
            message = self._message(datapath, mod, cookie=self._times_connected[mod.switch])
            message.set_xid(0)
            message.serialize()
            encoded = self._encoded[mod] = bytes(message.buf)
        return encoded

    @staticmethod
    def _message(datapath: Any, mod: FlowMod, *, cookie: int) -> Any:
        ofp, parser = datapath.ofproto, datapath.ofproto_parser
        if mod.command is Command.DELETE_ALL:
            return parser.OFPFlowMod(
                datapath=datapath,
                command=ofp.OFPFC_DELETE,
                table_id=ofp.OFPTT_ALL,
                out_port=ofp.OFPP_ANY,
                out_group=ofp.OFPG_ANY,
            )
        actions = []
        if mod.dscp is not None:
            actions.append(parser.OFPActionSetField(ip_dscp=mod.dscp))
        if mod.output is not None:
            actions.append(parser.OFPActionOutput(mod.output))
        instructions = []
        if actions:
            instructions.append(parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, actions))
        if mod.goto is not None:
            instructions.append(parser.OFPInstructionGotoTable(mod.goto))
        return parser.OFPFlowMod(
            datapath=datapath,
            cookie=cookie,
            table_id=mod.table,
            priority=mod.priority,
            flags=ofp.OFPFF_SEND_FLOW_REM,  # nobody else may delete rules: hear of it
            match=_match(parser, mod.match),
            instructions=instructions,
        )


def _match(parser: Any, match: Match) -> Any:
    fields = {name: getattr(match, name) for name in match.__struct_fields__}
    return parser.OFPMatch(**{name: value for name, value in fields.items() if value is not None})
