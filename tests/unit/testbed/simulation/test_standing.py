"""Flows with a standing verdict are not submitted to the scheduler. The run is the same as if they were."""

import pytest

from controller.flow import Flow, Stage
from controller.policies.fair import Fair
from controller.policy import NoOptions, Verdict
from controller.scheduler import Scheduler
from controller.view import ActiveFlow, View
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.record import RunRecord
from testbed.simulation.run import SimulatedRun


def quickstart(policy: str, *settings: str) -> RunRecord:
    texts = ["fabric=sim", "workload.requests=12", f"policies=['{policy}']", *settings]
    (job,) = resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs
    return SimulatedRun(job, lambda progress: None).run()


@pytest.mark.parametrize("order", ["levels", "exact"])
@pytest.mark.parametrize("policy", ["fair", "stage", "mfs", "mfs(rho_window_ms=5)", "mfs+requests"])
def test_the_rows_are_those_of_a_run_in_which_every_flow_is_submitted(
    policy: str, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (f"simulation.order={order}", "serving.decode_background=2")
    standing = quickstart(policy, *settings)
    monkeypatch.setattr(Scheduler, "standing", lambda self, stage, batch: None)
    asked = quickstart(policy, *settings)
    for table in ("requests", "flows", "decisions", "spans", "links"):
        assert list(getattr(standing, table)) == list(getattr(asked, table))


def test_collectives_of_mfs_are_not_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    submitted = []
    honest = Scheduler.first_verdict

    def first_verdict(self: Scheduler, now_ns: int, flow: Flow) -> Verdict:
        submitted.append(flow.stage)
        return honest(self, now_ns, flow)

    monkeypatch.setattr(Scheduler, "first_verdict", first_verdict)
    quickstart("mfs")
    assert set(submitted) == {Stage.KV_REUSE, Stage.P2D}


@pytest.mark.parametrize("order", ["levels", "exact"])
@pytest.mark.parametrize("policy", ["fifo", "sjf", "edf", "edf-all", "llf", "reverse", "mfs"])
def test_the_rows_are_those_of_a_run_in_which_the_scheduler_hears_of_progress(
    policy: str, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (f"simulation.order={order}", "workload.load=1.2")
    unheard = quickstart(policy, *settings)
    monkeypatch.setattr(Scheduler, "hand_over_bytes", lambda self: False)
    heard = quickstart(policy, *settings)
    for table in ("requests", "flows", "decisions", "spans", "links"):
        assert list(getattr(unheard, table)) == list(getattr(heard, table))


def test_a_subclass_with_hooks_of_its_own_does_not_inherit_a_standing_verdict() -> None:
    class Hooked(Fair):
        def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
            return super().on_submit(now_ns, flow, view)

    class Renamed(Fair):
        name = "renamed"

    ports = {"a->b": 10**9}
    assert Scheduler(Renamed(NoOptions()), ports=ports).standing(Stage.P2D, None) is not None
    assert Scheduler(Hooked(NoOptions()), ports=ports).standing(Stage.P2D, None) is None
