"""What the scheduler keeps, when it forgets, and what it refuses to be told."""

import pytest
from scheduling_world import due, in_force

from controller.flow import Batch, Flow, Level, Stage
from controller.policies import make_policy
from controller.policy import NoOptions, Policy, Verdict
from controller.scheduler import Scheduler
from controller.verdict_checks import SchedulerError
from controller.view import ActiveFlow, View

UP, DOWN = "h1->s1", "s1->h2"
PORTS = {UP: 100_000_000_000, DOWN: 100_000_000_000}
MS = 1_000_000


def scheduler(spec: str = "mfs") -> Scheduler:
    return Scheduler(make_policy(spec), ports=PORTS)


def batch(name: str = "b", layers: int = 4) -> Batch:
    return Batch(id=name, layers=layers, requests=due(1000 * MS))


def flow(name: str, stage: Stage, size: int = 1000, **more: object) -> Flow:
    return Flow(id=name, stage=stage, size_bytes=size, load={UP: size, DOWN: size}, **more)  # type: ignore[arg-type]


def test_a_submitted_flow_gets_its_first_assignment_at_once() -> None:
    core = scheduler("fair")
    (said,) = core.submit(7, flow("f", Stage.P2D))
    assert (said.time_ns, said.flow, said.level, said.previous) == (7, "f", Level.P3, None)
    assert said.reason == "one level for all"
    assert in_force(core, "f") is Level.P3
    assert list(core.view.flows) == ["f"]


def test_a_completed_flow_is_forgotten_and_its_id_is_free_again() -> None:
    core = scheduler()
    core.submit(0, flow("f", Stage.P2D))
    assert core.completion(1, "f") == []
    assert dict(core.view.flows) == {}
    assert core.submit(2, flow("f", Stage.P2D))[0].previous is None


def test_a_batch_departs_when_its_compute_is_over_and_its_last_flow_is_done() -> None:
    core = scheduler()
    core.batch_started(0, batch(layers=2))
    core.submit(0, flow("f", Stage.P2D, batch="b", layer=0))
    core.layer_advanced(1, "b", 1)
    core.layer_advanced(2, "b", 2)
    assert list(core.view.batches) == ["b"]
    core.completion(3, "f")
    assert dict(core.view.batches) == {}


def test_a_batch_without_flows_departs_with_the_end_of_its_compute() -> None:
    core = scheduler()
    core.batch_started(0, batch(layers=2))
    core.layer_advanced(1, "b", 2)
    assert dict(core.view.batches) == {}
    core.batch_started(2, batch(layers=2))


def test_the_s3_flow_of_a_slow_rank_may_come_after_its_batch_has_departed() -> None:
    """10 Mbit of the 100 Mbit that fit into 1 ms: MLU 0.1, P3 among S1 and S2."""
    core = scheduler("mfs(rho=off,s3_levels=0)")
    core.batch_started(0, batch(layers=1))
    core.layer_advanced(1, "b", 1)
    late = flow("f", Stage.P2D, 1_250_000, batch="b", layer=0, deadline_ns=1 + MS)
    assert core.submit(1, late)[0].level is Level.P3
    assert core.next_tick_ns() == 1 + 5 * MS


def test_reports_of_slower_ranks_change_nothing() -> None:
    """S1 of layer 3: RLI 3 is P5, RLI 1 is P3 once layer 2 has begun, and layer 1 comes too late."""
    core = scheduler("mfs(s3_levels=0)")
    core.batch_started(0, batch())
    assert core.submit(0, flow("f", Stage.KV_REUSE, batch="b", layer=3))[0].level is Level.P5
    assert [said.level for said in core.layer_advanced(1, "b", 2)] == [Level.P3]
    assert core.layer_advanced(2, "b", 1) == []
    assert core.layer_advanced(2, "b", 2) == []
    assert in_force(core, "f") is Level.P3


def test_progress_that_comes_late_does_not_bring_bytes_back() -> None:
    """With 125 of 1,250,000 bytes left and 1 ms to go MLU is 0.00001, and the late report is old."""
    core = scheduler("mfs(rho=off,layer_boundary=off,monotonic=off,s3_levels=0)")
    core.submit(0, flow("f", Stage.P2D, 1_250_000, deadline_ns=MS))
    assert in_force(core, "f") is Level.P3
    assert [said.level for said in core.progress(0, "f", 125)] == [Level.P6]
    assert core.progress(0, "f", 1_000_000) == []


def test_time_does_not_run_backwards_in_the_log() -> None:
    core = scheduler("fair")
    core.submit(10, flow("f", Stage.P2D))
    assert core.submit(9, flow("g", Stage.P2D))[0].time_ns == 10


def test_there_is_nothing_to_tick_for_without_a_flow_that_waits_for_its_deadline() -> None:
    core = scheduler()
    assert core.next_tick_ns() is None
    core.batch_started(0, batch())
    core.submit(0, flow("f", Stage.P2D, batch="b", layer=0, deadline_ns=100 * MS))
    assert core.next_tick_ns() is None  # its batch still computes: layer boundaries will come
    core.layer_advanced(2 * MS, "b", 4)
    assert core.next_tick_ns() == 7 * MS
    assert core.tick(6 * MS) == []
    assert core.next_tick_ns() == 7 * MS
    core.tick(7 * MS)
    assert core.next_tick_ns() == 12 * MS
    core.completion(8 * MS, "f")
    assert core.next_tick_ns() is None


def test_policies_that_never_change_their_mind_need_no_ticks() -> None:
    core = scheduler("stage")
    core.submit(0, flow("f", Stage.P2D))
    assert core.next_tick_ns() is None


def test_what_cannot_be_is_refused_with_the_id_in_the_message() -> None:
    core = scheduler()
    core.batch_started(0, batch())
    core.submit(0, flow("f", Stage.P2D))
    with pytest.raises(SchedulerError, match="flow 'f' is active already"):
        core.submit(0, flow("f", Stage.P2D))
    with pytest.raises(SchedulerError, match="batch 'b' has started already"):
        core.batch_started(0, batch())
    with pytest.raises(SchedulerError, match="batch 'c' has 0 layers"):
        core.batch_started(0, batch("c", layers=0))
    with pytest.raises(SchedulerError, match="flow 'g' is not active"):
        core.completion(0, "g")
    with pytest.raises(SchedulerError, match="flow 'g' is not active"):
        core.progress(0, "g", 1)
    with pytest.raises(SchedulerError, match="batch 'z' is not active"):
        core.layer_advanced(0, "z", 1)
    with pytest.raises(SchedulerError, match="has 4 layers and cannot begin layer 5"):
        core.layer_advanced(0, "b", 5)
    with pytest.raises(SchedulerError, match="flow 'f' of 1000 bytes cannot have 1001 left"):
        core.progress(0, "f", 1001)
    with pytest.raises(SchedulerError, match="flow 'g' is of batch 'z', which is not active"):
        core.submit(0, flow("g", Stage.KV_REUSE, batch="z", layer=0))
    with pytest.raises(SchedulerError, match="flow 'g' has a size of -1 bytes"):
        core.submit(0, flow("g", Stage.P2D, size=-1))
    with pytest.raises(SchedulerError, match="flow 'g' crosses 'h9->s1', which is not a port here"):
        core.submit(0, Flow(id="g", stage=Stage.P2D, size_bytes=1, load={"h9->s1": 1}))
    assert list(core.view.flows) == ["f"]  # a refusal leaves no trace


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Verdict(9, "x"), "the level 9"),  # type: ignore[arg-type]
        (Verdict(Level.P3, "x", order=float("nan")), "the order nan"),
        (Verdict(Level.P3, "x", rate_bps=0), "a rate of 0 bits/s"),
        (Verdict(Level.P3, "x", rate_bps=-5), "a rate of -5 bits/s"),
    ],
)
def test_a_verdict_that_cannot_be_is_refused_with_the_name_of_the_policy(
    verdict: Verdict, words: str
) -> None:
    class Odd(Policy):
        name = "odd"
        summary = "says what cannot be"

        def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
            return verdict

    core = Scheduler(Odd(NoOptions()), ports=PORTS, exact=True)
    with pytest.raises(SchedulerError, match=f"policy 'odd' gave flow 'f' .*{words}"):
        core.submit(0, Flow(id="f", stage=Stage.P2D, size_bytes=1, load={UP: 1}))


@pytest.mark.parametrize("returned", [None, Level.P3, ("P3", "x")])
def test_a_first_verdict_that_is_none_is_refused_with_the_name_of_the_hook(returned: object) -> None:
    class Odd(Policy):
        name = "odd"
        summary = "forgets to return"

        def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
            return returned  # type: ignore[return-value]

    core = Scheduler(Odd(NoOptions()), ports=PORTS)
    with pytest.raises(SchedulerError, match=r"policy 'odd' returned .* from on_submit, which is no Verdict"):
        core.submit(0, flow("f", Stage.P2D))


@pytest.mark.parametrize("returned", [None, [], {"f": None}, {"f": Level.P3}])
@pytest.mark.parametrize("hook", ["on_batch", "on_layer", "on_progress", "on_completion", "on_departure"])
def test_verdicts_that_are_none_are_refused_with_the_name_of_the_hook(hook: str, returned: object) -> None:
    class Odd(Policy):
        name = "odd"
        summary = "forgets to return"

        def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
            return Verdict(Level.P3, "x")

    setattr(Odd, hook, lambda self, now_ns, about, view: returned)
    core = Scheduler(Odd(NoOptions()), ports=PORTS)

    def everything() -> None:
        core.batch_started(0, batch(layers=2))
        core.submit(0, flow("f", Stage.P2D, batch="b", layer=0))
        core.layer_advanced(1, "b", 1)
        core.progress(2, "f", 10)
        core.layer_advanced(2, "b", 2)
        core.completion(3, "f")

    with pytest.raises(SchedulerError, match=f"policy 'odd' returned .* from {hook}, which does not map"):
        everything()
