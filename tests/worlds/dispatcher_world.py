"""A dispatcher on a star of three servers, one rank on each of the first two, two on the third."""

from collections.abc import Sequence

from flow_table import connection, wiring_of

from controller.dispatcher import Action, Dispatcher, Enforce, Grant
from controller.flow import Level, Stage, Transfer
from controller.openflow import RuleBook
from controller.policies import make_policy
from controller.policy import UNCHANGED, NoOptions, Policy, Verdict, Verdicts
from controller.protocol import LaneUp, Submit, TcpConnection
from controller.scheduler import Scheduler
from controller.view import ActiveFlow, View
from testbed.topology import star

GBPS = 10**9
SERVERS = ("h1", "h2", "h3", "h3")
"""Server of each rank."""


class Scripted(Policy):
    """Gives every flow the level that its script names; each tick turns to the next page of the script."""

    name = "scripted"
    summary = "for tests"
    recheck_ns = 1

    def __init__(self, *pages: dict[str, Level]) -> None:
        super().__init__(NoOptions())
        self._pages = list(pages)

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        return Verdict(self._pages[0].get(flow.flow.id, Level.P3), "page 0")

    def wants_ticks(self, view: View) -> bool:
        return True

    def on_tick(self, now_ns: int, view: View) -> Verdicts:
        if len(self._pages) == 1:
            return UNCHANGED
        self._pages.pop(0)
        return {f: Verdict(level, "next page") for f, level in self._pages[0].items() if f in view.flows}


class World:
    """Opens lanes, submits and completes flows by name. `now` stands for both clocks, in nanoseconds."""

    def __init__(self, policy: Policy | str) -> None:
        wiring = wiring_of(star(servers=3, nic_bps=GBPS))
        self.wiring = wiring
        made = make_policy(policy) if isinstance(policy, str) else policy
        self.scheduler = Scheduler(made, ports=wiring.port_bps)
        self.rules = RuleBook(wiring)
        self.dispatcher = Dispatcher(self.scheduler, self.rules)
        self.now = 0
        self._ports = 40_000

    def connections(self, src: int, dst: int, count: int = 1) -> tuple[TcpConnection, ...]:
        if SERVERS[src] == SERVERS[dst]:
            return ()
        self._ports += count
        return tuple(
            connection(self.wiring, SERVERS[src], SERVERS[dst], self._ports + i) for i in range(count)
        )

    def lane(self, name: str, *, src: int = 0, dst: int = 1, stage: Stage = Stage.P2D) -> None:
        self.dispatcher.lane_up(
            LaneUp(
                lane=name,
                stage=stage,
                src=src,
                dst=dst,
                src_server=SERVERS[src],
                dst_server=SERVERS[dst],
                connections=self.connections(src, dst),
            )
        )

    def submit(
        self,
        flow: str,
        *,
        src: int = 0,
        dst: int = 1,
        stage: Stage = Stage.P2D,
        size_bytes: int = 1000,
        batch: str | None = None,
        layer: int | None = None,
        coflow: str | None = None,
    ) -> list[Action]:
        transfer = Transfer(
            id=flow,
            stage=stage,
            src=src,
            dst=dst,
            size_bytes=size_bytes,
            batch=batch,
            layer=layer,
            coflow=coflow,
        )
        return self.dispatcher.submit(self.now, Submit(transfer=transfer, sent_wall_ns=self.now))

    def completed(self, flow: str) -> list[Action]:
        return self.dispatcher.completed(self.now, self.now, flow)

    def tick(self) -> list[Action]:
        self.now += 1
        return self.dispatcher.tick(self.now)

    def confirm(self, actions: Sequence[Action]) -> list[Action]:
        """Answer the barrier after every level change among `actions`."""
        answers = []
        for action in actions:
            if isinstance(action, Enforce):
                answers += self.dispatcher.confirmed(action.lane, action.level)
        return answers


def levels(actions: Sequence[Action]) -> list[tuple[str, Level]]:
    """The level changes among `actions`: lane and level."""
    return [(a.lane, a.level) for a in actions if isinstance(a, Enforce)]


def permits(actions: Sequence[Action]) -> list[tuple[str, str, Level]]:
    """The permits among `actions`: flow, lane and level."""
    return [(a.permit.flow, a.permit.lane, a.permit.level) for a in actions if isinstance(a, Grant)]
