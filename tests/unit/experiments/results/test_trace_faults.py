"""A viewer shows when the faults of a run were in force, and on what."""

import json
from collections.abc import Iterable

import msgspec
from record_factory import micro_record
from result_rows import MS
from trace_viewer import Seen, View, viewed

from controller.units import NS_PER_S
from experiments.resolve.jobs import resolve
from experiments.results.excerpt import excerpt
from experiments.results.perfetto import trace_events
from experiments.results.trace_window import Window
from experiments.scenario.reading import load_scenario, override
from testbed.faults import DecodeLoss, Fault, LinkFault, RankPause, Straggler, UnitLoss
from testbed.job import Scale
from testbed.simulation.run import SimulatedRun

SCALE = Scale(time_dilation=30, bytes_scale=0.001)


def down(from_ms: int, to_ms: int | None, link: str = "h1-s1", share: float = 0.0) -> LinkFault:
    to_ns = None if to_ms is None else to_ms * MS
    return LinkFault(link=link, ports=("h1->s1", "s1->h1"), share=share, from_ns=from_ms * MS, to_ns=to_ns)


def shown(faults: Iterable[Fault], window: Window | None = None) -> View:
    """View the two flows of a run of 321 ms that had these faults."""
    record = msgspec.structs.replace(micro_record(), faults=tuple(faults), duration_ns=321 * MS)
    events = trace_events(excerpt(record, SCALE, window))
    return viewed(json.loads(b"[" + b",".join(events) + b"]"))


def of_faults(view: View) -> list[Seen]:
    return [slice for slice in view.slices if slice.process == "faults"]


def told(view: View) -> list[tuple[str, str, float, float]]:
    """The thread, the name, and the times in ms of each fault."""
    return [(s.thread, s.name, s.start_ns / MS, s.end_ns / MS) for s in of_faults(view)]


def test_each_fault_is_a_slice_on_the_thread_of_what_it_strikes() -> None:
    faults = (
        down(50, 80),
        down(200, 250, share=0.25),
        Straggler(rank=2, factor=2, from_ns=0, to_ns=None),
        RankPause(rank=3, from_ns=100 * MS, to_ns=120 * MS),
        UnitLoss(unit="p0", from_ns=90 * MS, to_ns=None),
        DecodeLoss(worker=1, from_ns=300 * MS, to_ns=310 * MS),
    )
    assert sorted(told(shown(faults))) == [
        ("decode worker 1", "decode worker 1 lost", 300, 310),
        ("link h1-s1", "link h1-s1 at 0.25 of its rate", 200, 250),
        ("link h1-s1", "link h1-s1 down", 50, 80),
        ("rank 2", "rank 2 computing 2 times as long", 0, 321),
        ("rank 3", "rank 3 paused", 100, 120),
        ("unit p0", "unit p0 lost", 90, 321),
    ]


def test_a_slice_says_what_the_scenario_asked_for() -> None:
    (slice,) = of_faults(shown([down(50, 80)]))
    assert slice.args == {"from_s": 0.05, "to_s": 0.08, "ports": "h1->s1, s1->h1"}
    (to_the_end,) = of_faults(shown([Straggler(rank=2, factor=2, from_ns=NS_PER_S // 10, to_ns=None)]))
    assert to_the_end.args == {"from_s": 0.1}


def test_faults_of_one_thing_at_one_time_get_threads_of_their_own() -> None:
    faults = (Straggler(rank=2, factor=2, from_ns=0, to_ns=None), RankPause(rank=2, from_ns=MS, to_ns=9 * MS))
    assert [fault[0] for fault in told(shown(faults))] == ["rank 2", "rank 2 (2)"]


def test_a_fault_after_the_end_of_the_run_and_a_run_without_faults_show_nothing() -> None:
    assert of_faults(shown([down(321, 400)])) == []
    assert told(shown([down(320, 400)])) == [("link h1-s1", "link h1-s1 down", 320, 321)]
    assert of_faults(shown([])) == []


def test_a_window_shows_the_part_of_a_fault_that_is_in_it() -> None:
    faults = (down(50, 80), down(90, 130), down(140, None), down(200, 210))
    window = Window(100 * MS, 150 * MS)
    assert [fault[2:] for fault in told(shown(faults, window))] == [(100, 130), (140, 150)]


def test_the_trace_of_a_simulated_run_has_the_faults_of_its_scenario() -> None:
    """`link-flap` has several times at which its link is down; the run of 4 requests meets the first."""
    settings = ("fabric=sim", "workload.requests=4", "workload.load=0.6", "workload.warmup=0")
    job = resolve(load_scenario("link-flap", [override(text) for text in settings])).jobs[0]
    record = SimulatedRun(job, lambda _: None).run()
    view = viewed(json.loads(b"[" + b",".join(trace_events(excerpt(record, job.scale))) + b"]"))
    began = [fault for fault in job.faults if fault.from_ns < record.duration_ns]
    assert [s.start_ns for s in of_faults(view)] == [fault.from_ns for fault in began]
    assert len(began) > 0
