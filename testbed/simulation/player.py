"""The player of a simulated run: it drives the conductor, by function calls at moments of model time."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import assert_never

from controller.units import NS_PER_S
from testbed.fabric import RunFailed, RunProgress
from testbed.faults import LinkFault, in_force, when
from testbed.job import Job
from testbed.live import LiveState
from testbed.serving.actions import Action, Actions, Announce, AtLayer, Expect, GoOn, Post, PostTimed, Run
from testbed.serving.conductor import Conductor
from testbed.simulation._core import Core
from workers.plan import BatchPlan

_PATIENCE_NS = 60 * NS_PER_S
"""Model time without progress after which a run whose links stay down is given up."""


class Player:
    """Tells `conductor` what the ranks report, and has its actions carried out by the core.

    `told` is called with the progress of the run, but not often.
    """

    def __init__(self, job: Job, conductor: Conductor, told: Callable[[RunProgress], None]) -> None:
        self._conductor = conductor
        self._told = told
        self._links = [fault for fault in job.faults if isinstance(fault, LinkFault)]
        self._moved = (0, 0)
        self._batch_ns = job.simulation.overheads.batch_ns
        self._planned_ns: int | None = None
        self._core: Core

    def begin(self, core: Core) -> None:
        """Start the run on `core`, whose agenda does the rest."""
        self._core = core
        self._do(self._conductor.begin())
        self._plan_act()

    # --- reports of the core --------------------------------------------------------------------

    def layer_begun(self, batch: str, rank: int, layer: int) -> None:
        actions = self._conductor.layer_begun(self._core.now_ns, batch, rank, layer)
        if actions:
            self._do(actions)

    def first_token(self, request: int, p2d_end_ns: int) -> None:
        self._do(self._conductor.first_token(self._core.now_ns, request, p2d_end_ns))
        self._plan_act()

    def arrived(self, flow: str) -> None:
        actions = self._conductor.arrived(flow)
        if actions:
            self._do(actions)
        self._plan_act()

    def paused(self, batch: str, rank: int, layer: int) -> None:
        self._report(self._conductor.paused, batch, rank, layer)

    def rank_done(self, batch: str, rank: int, start_ns: int) -> None:
        self._report(self._conductor.rank_done, batch, rank, start_ns, self._core.now_ns)

    def finished(self) -> bool:
        return self._conductor.finished

    def report(self) -> None:
        now_ns = self._core.now_ns
        live = LiveState(time_ns=now_ns, requests=self._conductor.requests_at(now_ns))
        self._told(
            RunProgress(phase="running", done=self._conductor.done, total=self._conductor.total, live=live)
        )

    def stuck(self) -> None:
        """Raise `RunFailed`: the run has not finished, and nothing will ever happen."""
        down = self._down_for_good()
        if down:
            raise RunFailed(f"nothing moves any more: {down}; {self._conductor.describe()}")
        raise RunFailed(
            "nothing moves and nothing is planned, which is a bug of the simulator:"
            f" {self._conductor.describe()}"
        )

    def _down_for_good(self) -> str:
        """The links that are down now and will stay so, in words."""
        now_ns = self._core.now_ns
        down = [fault for fault in self._links if fault.to_ns is None and fault.share == 0]
        return ", ".join(f"{fault.words} {when(fault)} (faults)" for fault in down if in_force(fault, now_ns))

    def _check_moves(self) -> None:
        """Raise `RunFailed` if a link is down for good and nothing but background decoding goes on."""
        now_ns, steps = self._core.now_ns, self._conductor.steps
        if steps != self._moved[1] or not self._conductor.under_way:
            self._moved = now_ns, steps
        elif now_ns - self._moved[0] > _PATIENCE_NS and self._down_for_good():
            self.stuck()

    def _report(self, event: Callable[..., Actions], *what: object) -> None:
        """Report to the conductor by a message, as the ranks of other fabrics do. Here it takes no time."""
        now_ns = self._core.now_ns
        self._core.at(now_ns, partial(self._tell, event, now_ns, *what))

    def _tell(self, event: Callable[..., Actions], *what: object) -> None:
        self._do(event(*what))

    # --- actions of the conductor ---------------------------------------------------------------

    def _plan_act(self) -> None:
        """Let the conductor act when it next has something to do."""
        due_ns = self._conductor.due_ns
        if due_ns is not None and due_ns != self._planned_ns:
            self._planned_ns = due_ns
            self._core.at(max(due_ns, self._core.now_ns), self._act)

    def _act(self) -> None:
        self._check_moves()
        self._do(self._conductor.act(self._core.now_ns))
        self._plan_act()

    def _do(self, actions: Iterable[Action]) -> None:
        core = self._core
        for action in actions:
            match action:
                case Announce():
                    self._announce(action)
                case Expect(plan=plan):
                    core.expect(plan, isinstance(plan, BatchPlan))
                case Post(transfers=transfers):
                    for transfer in transfers:
                        core.post(transfer)
                case PostTimed(flows=flows):
                    for flow in flows:
                        core.post_at(flow.start_ns, flow.transfer)
                case Run(plan=plan):
                    core.start(plan)
                case GoOn(plan=plan):
                    core.go_on(plan)
                case AtLayer(batches=batches, layer=layer):
                    for batch in batches:
                        core.layer_advanced(batch, layer)
                case _:
                    assert_never(action)

    def _announce(self, action: Announce) -> None:
        self._core.batch_started(action.batch)
        known = partial(self._tell, self._conductor.known, action.batch.id)
        if self._batch_ns and action.ranks and not action.fetch:
            self._core.at(self._core.now_ns + self._batch_ns, known)
        else:
            known()
