"""Each invariant of docs/concepts/invariants.md, broken in a whole run.

The tests break the simulator, and the run says which law it broke. No scenario can cause any of this.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.job import Job
from testbed.serving.conductor import ServingConductor
from testbed.simulation.run import SimulatedRun

Breaks = Callable[[SimulatedRun, pytest.MonkeyPatch], None]


def four_requests() -> Job:
    texts = ["workload.requests=4", "fabric=sim", "policies=[mfs]"]
    (job,) = resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs
    return job


def broken_laws(job: Job, breaks: Callable[[SimulatedRun], None] = lambda run: None) -> set[int]:
    """The numbers of the laws that a run breaks, after `breaks` has broken the simulator."""
    run = SimulatedRun(job, lambda progress: None)
    breaks(run)
    fidelity = run.run().fidelity
    laws = {int(check.name.split()[0]) for check in fidelity.checks if not check.ok}
    assert fidelity.faithful == (not laws)
    return laws


def _an_answer_is_counted_that_nobody_had(run: SimulatedRun, patch: pytest.MonkeyPatch) -> None:
    """The count that ends the run is right all the same."""
    honest = ServingConductor.first_token

    def first_token(self: ServingConductor, now_ns: int, request: int, p2d_end_ns: int) -> Any:
        if request == 0:
            self._first_tokens += 1
            return ()
        return honest(self, now_ns, request, p2d_end_ns)

    patch.setattr(ServingConductor, "first_token", first_token)


def _fault(name: str, value: object) -> Breaks:
    return lambda run, patch: setattr(run.core.faults, name, value)


def test_an_honest_run_breaks_none() -> None:
    assert broken_laws(four_requests()) == set()


@pytest.mark.parametrize(
    ("law", "breaks"),
    [
        pytest.param(1, _an_answer_is_counted_that_nobody_had, id="an answer is counted that nobody had"),
        pytest.param(2, _fault("lost_flow", "p0.b0.r0.l0.s3.0-8"), id="an S3 flow is lost"),
        pytest.param(2, _fault("lost_flow", "p0.b0.l3.dispatch.p0.ep0.0"), id="a share is lost"),
        pytest.param(3, _fault("size_factor", 0.99), id="bytes are lost"),
        pytest.param(4, _fault("rate_factor", 1.01), id="rates are too high"),
        pytest.param(5, _fault("rate_factor", 0.9), id="rates are too low"),
        pytest.param(6, _fault("size_factor", 0.5), id="messages are half as long"),
        pytest.param(7, _fault("submit_late_ns", 1), id="flows are submitted after their permit"),
        pytest.param(8, _fault("early_end", 500), id="an end lies in the past"),
        pytest.param(8, _fault("past_act", 50), id="an act is planned for the past"),
    ],
)
def test_a_run_that_breaks_a_law_says_so(law: int, breaks: Breaks, monkeypatch: pytest.MonkeyPatch) -> None:
    assert law in broken_laws(four_requests(), lambda run: breaks(run, monkeypatch))


def test_switched_off_flows_and_streams_are_not_looked_at() -> None:
    job = four_requests()
    off = msgspec.structs.replace(job.simulation, invariants=False)

    def breaks(run: SimulatedRun) -> None:
        run.core.faults.rate_factor = 0.9
        run.core.faults.submit_late_ns = 1

    assert broken_laws(job, breaks) >= {5, 7}
    assert broken_laws(msgspec.structs.replace(job, simulation=off), breaks).isdisjoint({5, 7})
