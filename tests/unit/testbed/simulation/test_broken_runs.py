"""Each invariant of docs/concepts/invariants.md, broken in a whole run.

The tests break the simulator, and the run says which law it broke. No scenario can cause any of this.
"""

from collections.abc import Callable
from typing import Any

import pytest

from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.record import FlowRow
from testbed.serving.conductor import ServingConductor
from testbed.simulation.agenda import Agenda
from testbed.simulation.links.network import FluidNetwork
from testbed.simulation.run import SimulatedRun
from testbed.simulation.sending import Sending
from testbed.spool import Spool

Breaks = Callable[[pytest.MonkeyPatch], None]


def broken_laws(*settings: str) -> set[int]:
    """The numbers of the laws that a run of four requests breaks."""
    texts = ["workload.requests=4", "fabric=sim", "policies=[mfs]", *settings]
    (job,) = resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs
    fidelity = SimulatedRun(job, lambda progress: None).run().fidelity
    laws = {int(check.name.split()[0]) for check in fidelity.checks if not check.ok}
    assert fidelity.faithful == (not laws)
    return laws


def _an_answer_is_counted_that_nobody_had(patch: pytest.MonkeyPatch) -> None:
    """The count that ends the run is right all the same."""
    honest = ServingConductor.first_token

    def first_token(self: ServingConductor, now_ns: int, request: int, p2d_end_ns: int) -> Any:
        if request == 0:
            self._first_tokens += 1
            return ()
        return honest(self, now_ns, request, p2d_end_ns)

    patch.setattr(ServingConductor, "first_token", first_token)


def _a_flow_is_lost(patch: pytest.MonkeyPatch) -> None:
    class Leaky(Spool[FlowRow]):
        def append(self, row: FlowRow) -> None:
            if row.id != "p0.b0.r0.l0.s3.0-8" and not row.id.endswith(".l3.dispatch.p0.ep0.0"):
                super().append(row)

    def spool(row: Any) -> Spool[Any]:
        return Leaky(row) if row is FlowRow else Spool(row)

    patch.setattr("testbed.simulation.transport.Spool", spool)


def _bytes_are_lost(patch: pytest.MonkeyPatch) -> None:
    honest = FluidNetwork.add

    def add(self: FluidNetwork, ports: Any, size: float, *rest: Any) -> int:
        return honest(self, ports, 0.99 * size, *rest)

    patch.setattr(FluidNetwork, "add", add)


def _rates_are(factor: float) -> Breaks:
    def breaks(patch: pytest.MonkeyPatch) -> None:
        honest = FluidNetwork.settle

        def settle(self: FluidNetwork, now_ns: int) -> None:
            honest(self, now_ns)
            for stream in range(self.rows()):
                self.falsify(stream, factor)

        patch.setattr(FluidNetwork, "settle", settle)

    return breaks


def _messages_are_half_as_long(patch: pytest.MonkeyPatch) -> None:
    honest = FluidNetwork.add

    def add(self: FluidNetwork, ports: Any, size: float, *rest: Any) -> int:
        return honest(self, ports, 0.5 * size, *rest)

    patch.setattr(FluidNetwork, "add", add)


def _flows_are_submitted_after_their_permit(patch: pytest.MonkeyPatch) -> None:
    honest = Sending.__init__

    def init(self: Sending, transfer: Any, submit_ns: int, done: Any) -> None:
        honest(self, transfer, submit_ns, done)
        self.submit_ns = submit_ns + 1

    patch.setattr(Sending, "__init__", init)


def _an_end_lies_in_the_past(patch: pytest.MonkeyPatch) -> None:
    honest = FluidNetwork.next_end_ns
    calls = iter(range(1_000_000))

    def next_end_ns(self: FluidNetwork) -> int | None:
        return 5 if next(calls) == 500 else honest(self)

    patch.setattr(FluidNetwork, "next_end_ns", next_end_ns)


def _an_act_is_planned_for_the_past(patch: pytest.MonkeyPatch) -> None:
    honest = Agenda.at
    calls = iter(range(1_000_000))

    def at(self: Agenda, time_ns: int, act: Callable[[], None]) -> None:
        honest(self, time_ns - 1 if next(calls) == 50 and time_ns == self.now_ns else time_ns, act)

    patch.setattr(Agenda, "at", at)


def test_an_honest_run_breaks_none() -> None:
    assert broken_laws() == set()


@pytest.mark.parametrize(
    ("law", "breaks"),
    [
        (1, _an_answer_is_counted_that_nobody_had),
        (2, _a_flow_is_lost),
        (3, _bytes_are_lost),
        (4, _rates_are(1.01)),
        (5, _rates_are(0.9)),
        (6, _messages_are_half_as_long),
        (7, _flows_are_submitted_after_their_permit),
        (8, _an_end_lies_in_the_past),
        (8, _an_act_is_planned_for_the_past),
    ],
)
def test_a_run_that_breaks_a_law_says_so(law: int, breaks: Breaks, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch)
    assert law in broken_laws()
