"""The player of a simulated run: it drives the conductor, by function calls at moments of model time."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import assert_never

from testbed.columns import ColumnSpool
from testbed.job import Job
from testbed.record import SpanRow
from testbed.serving.conductor import (
    Action,
    Actions,
    Announce,
    AtLayer,
    Conductor,
    Expect,
    GoOn,
    Post,
    PostTimed,
    Run,
)
from testbed.simulation.agenda import Agenda
from testbed.simulation.ranks import SimulatedRanks
from testbed.simulation.transport import Transport


class Player:
    """Tells `conductor` what the ranks report, and has its actions carried out."""

    def __init__(self, job: Job, conductor: Conductor, transport: Transport, agenda: Agenda) -> None:
        self._conductor = conductor
        self._transport = transport
        self._agenda = agenda
        self._batch_ns = job.simulation.overheads.batch_ns
        self._ranks = SimulatedRanks(job, transport, agenda, self)
        self._planned_ns: int | None = None

    @property
    def spans(self) -> ColumnSpool[SpanRow]:
        """What the ranks did, and when."""
        return self._ranks.spans

    def begin(self) -> None:
        """Start the run. The agenda does the rest."""
        self._do(self._conductor.begin())
        self._plan_act()

    # --- reports of the ranks -------------------------------------------------------------------

    def layer_begun(self, batch: str, rank: int, layer: int) -> None:
        self._do(self._conductor.layer_begun(self._agenda.now_ns, batch, rank, layer))

    def first_token(self, request: int, p2d_end_ns: int) -> None:
        self._do(self._conductor.first_token(self._agenda.now_ns, request, p2d_end_ns))

    def arrived(self, flow: str) -> None:
        self._do(self._conductor.arrived(flow))
        self._plan_act()

    def paused(self, batch: str, rank: int, layer: int) -> None:
        self._report(self._conductor.paused, batch, rank, layer)

    def rank_done(self, batch: str, rank: int, start_ns: int) -> None:
        self._report(self._conductor.rank_done, batch, rank, start_ns, self._agenda.now_ns)

    def _report(self, event: Callable[..., Actions], *what: object) -> None:
        """Report to the conductor by a message, as the ranks of other fabrics do. Here it takes no time."""
        now_ns = self._agenda.now_ns
        self._agenda.at(now_ns, partial(self._tell, event, now_ns, *what))

    def _tell(self, event: Callable[..., Actions], *what: object) -> None:
        self._do(event(*what))

    # --- actions of the conductor ---------------------------------------------------------------

    def _plan_act(self) -> None:
        """Let the conductor act when it next has something to do."""
        due_ns = self._conductor.due_ns
        if due_ns is not None and due_ns != self._planned_ns:
            self._planned_ns = due_ns
            self._agenda.at(max(due_ns, self._agenda.now_ns), self._act)

    def _act(self) -> None:
        self._do(self._conductor.act(self._agenda.now_ns))
        self._plan_act()

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Announce():
                    self._announce(action)
                case Expect(plan=plan):
                    self._ranks.expect(plan)
                case Post(transfers=transfers):
                    for transfer in transfers:
                        self._ranks.post(transfer)
                case PostTimed(flows=flows):
                    for flow in flows:
                        self._agenda.at(flow.start_ns, partial(self._ranks.post, flow.transfer))
                case Run(plan=plan):
                    self._ranks.run(plan)
                case GoOn(plan=plan):
                    self._ranks.go_on(plan)
                case AtLayer(batches=batches, layer=layer):
                    for batch in batches:
                        self._transport.layer_advanced(batch, layer)
                case _:
                    assert_never(action)

    def _announce(self, action: Announce) -> None:
        self._transport.batch_started(action.batch)
        known = partial(self._tell, self._conductor.known, action.batch.id)
        if self._batch_ns and action.ranks and not action.fetch:
            self._agenda.at(self._agenda.now_ns + self._batch_ns, known)
        else:
            known()
