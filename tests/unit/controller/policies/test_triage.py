"""Triage flow by flow, on a port that carries 1 MB in a millisecond: levels, moves and reasons by hand."""

import pytest
from keyed_world import DOWN, MB, MS, UP, first, s3, scheduler
from scheduling_world import due, in_force

from controller.flow import Batch, Flow, Level, Stage
from controller.policies import make_policy
from controller.scheduler import Scheduler

S1, S2, S3 = Stage.KV_REUSE, Stage.COLLECTIVE, Stage.P2D


def with_batches(spec: str = "triage", *, exact: bool = False) -> Scheduler:
    """Batch `a` (RED 100 ms) and batch `b` (RED 50 ms), both at layer 0 of 8."""
    core = scheduler(spec, exact=exact)
    for name, deadline_ms in (("a", 100), ("b", 50)):
        core.batch_started(0, Batch(id=name, layers=8, requests=due(deadline_ms * MS)))
    return core


def busy(spec: str, *, exact: bool = False) -> Scheduler:
    """The same, with S2 that waits on the port of the S3 flows. `rho=off` leaves S3 all of the port."""
    core = with_batches(spec, exact=exact)
    first(core, Flow(id="busy", stage=S2, size_bytes=50 * MB, load={UP: 50 * MB}, batch="a", layer=0))
    return core


def early(name: str, stage: Stage, layer: int, batch: str = "a") -> Flow:
    return Flow(id=name, stage=stage, size_bytes=MB, load={UP: MB}, batch=batch, layer=layer)


def test_compute_waits_for_s2_and_for_s1_of_its_layer_so_they_go_first() -> None:
    core = with_batches()
    assert first(core, early("s2", S2, 3)).level is Level.P1
    said = [first(core, early(str(layer), S1, layer)) for layer in (0, 1, 2, 7)]
    assert [each.level for each in said] == [Level.P1, Level.P2, Level.P3, Level.P3]
    assert said[3].reason == "RLI 7"


def test_s1_climbs_as_its_batch_comes_closer() -> None:
    core = with_batches()
    first(core, early("f", S1, 3))
    moves = [(one.previous, one.level) for layer in (1, 2, 3) for one in core.layer_advanced(0, "a", layer)]
    assert moves == [(Level.P3, Level.P2), (Level.P2, Level.P1)]


def test_s3_is_below_s1_and_s2_on_their_ports_however_urgent_it_is() -> None:
    """1 MB of 10 MB that fit, then 4 MB of 5 MB: from half of the port on, S3 goes before other S3."""
    core = busy("triage(rho=off)")
    calm, urgent = first(core, s3("calm", due_ms=10)), first(core, s3("urgent", size_mb=4, due_ms=5))
    assert (calm.level, urgent.level) == (Level.P5, Level.P4)
    assert urgent.reason == f"can be in time: 0.8 of {UP} until it is due (4 MB due by then)"


def test_urgent_s3_passes_s1_and_s2_where_it_takes_little_of_their_ports() -> None:
    """4 MB on a port of 0.5 MB/ms take 8 of 10 ms, and 4 ms of the port of S2: half as long."""
    flow = Flow(id="f", stage=S3, size_bytes=4 * MB, load={UP: 4 * MB, DOWN: 4 * MB}, deadline_ns=10 * MS)
    said = first(busy("triage(rho=off)"), flow)
    assert said.level is Level.P1
    assert said.reason.endswith("; 0.5 of that on ports of S1 and S2")
    assert first(busy("triage(rho=off, aside=0.4)"), flow).level is Level.P4
    exact = busy("triage(rho=off)", exact=True)
    assert first(exact, flow).order < first(exact, early("s2", S2, 0)).order


def test_s3_that_cannot_be_in_time_goes_last() -> None:
    said = first(with_batches(), s3("f", size_mb=6, due_ms=5))
    assert said.level is Level.P6
    assert said.reason == f"cannot be in time: 6 MB take 6.0 ms on {UP}, 5.0 ms are left"


def test_the_one_that_is_given_up_moves_at_the_next_tick() -> None:
    """`a` alone needs 4 of 5 ms. With `b`, one would be late, and `a` has more to send."""
    core = busy("triage(recheck_ns=1000, rho=off)")
    assert first(core, s3("a", size_mb=4, due_ms=5)).level is Level.P4
    assert first(core, s3("b", size_mb=3, due_ms=6)).level is Level.P4
    moved = core.tick(1000)
    assert [(one.flow, one.previous, one.level) for one in moved] == [("a", Level.P4, Level.P6)]


def test_one_that_was_given_up_comes_back_when_it_can_be_in_time_again() -> None:
    core = busy("triage(recheck_ns=1000, rho=off)")
    first(core, s3("a", size_mb=4, due_ms=8))
    first(core, s3("b", size_mb=3, due_ms=6))
    first(core, s3("c", size_mb=2, due_ms=8))
    core.tick(1000)
    assert in_force(core, "a") is Level.P6  # 3 until 6, then 7 and 9 of 8 ms
    core.completion(2 * MS, "c")
    core.tick(2 * MS)
    assert in_force(core, "a") is Level.P6  # 3 + 4 MB from 2 ms on: 9 of 8 ms
    core.completion(3 * MS, "b")
    core.tick(3 * MS)
    assert in_force(core, "a") is Level.P4  # 4 of 5 MB that fit


def test_s3_is_not_sorted_out_anew_before_its_time() -> None:
    """2 of 5 MB that fit are calm. 2 ms later, 2 of 3 MB are not, but the next look is after 5 ms."""
    core = busy("triage(rho=off)")
    assert first(core, s3("a", size_mb=2, due_ms=7)).level is Level.P5
    assert core.tick(4 * MS) == []
    assert [(one.flow, one.level) for one in core.tick(5 * MS)] == [("a", Level.P4)]


def test_a_flow_that_is_posted_later_shares_the_fate_of_its_request() -> None:
    core = with_batches()
    for name in ("one", "two"):
        flow = Flow(
            id=name,
            stage=S3,
            size_bytes=6 * MB,
            load={UP: 6 * MB},
            batch="a",
            request="r0",
            deadline_ns=5 * MS,
        )
        assert first(core, flow).level is Level.P6


def test_s3_without_a_deadline_is_calm_and_background_is_below_all() -> None:
    core = with_batches()
    assert first(core, s3("f")).level is Level.P5
    offload = Flow(id="offload", stage=Stage.BACKGROUND, size_bytes=MB, load={UP: MB})
    assert first(core, offload).level is Level.SCAVENGER


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (6, (1, 3, 4, 5, 6)),
        (5, (1, 2, 3, 4, 5)),
        (4, (1, 1, 2, 3, 4)),
        (3, (1, 1, 2, 2, 3)),
        (2, (1, 1, 2, 2, 2)),
    ],
)
def test_fewer_levels(levels: int, expected: tuple[int, ...]) -> None:
    """S2, S1 for the last layer, and S3 that is urgent, calm, lost. Each is due before those that follow."""
    core = busy(f"triage(levels={levels}, rho=off)")
    flows = [
        early("s2", S2, 0),
        early("s1", S1, 7),
        s3("urgent", size_mb=4, due_ms=5),
        s3("calm", due_ms=90),
        s3("lost", size_mb=500, due_ms=91),
    ]
    assert tuple(int(first(core, flow).level) for flow in flows) == expected


def test_exact_order() -> None:
    """S1 and S2 by RLI and then by RED, S3 by deadline, and what cannot be in time after all of them."""
    core = with_batches(exact=True)
    flows = [
        s3("lost", size_mb=60, due_ms=30),
        s3("later", due_ms=90),
        s3("sooner", due_ms=80),
        early("a ahead", S1, 2),
        early("b ahead", S1, 2, "b"),
        early("a now", S2, 0),
        early("b now", S2, 0, "b"),
    ]
    said = {flow.id: first(core, flow) for flow in flows}
    assert sorted(said, key=lambda name: (said[name].level, said[name].order)) == [
        "b now",
        "a now",
        "b ahead",
        "a ahead",
        "sooner",
        "later",
        "lost",
    ]


def test_giving_up_can_be_switched_off() -> None:
    core = busy("triage(give_up=off, recheck_ns=1000000, rho=off)")
    assert first(core, s3("f", size_mb=6, due_ms=5)).level is Level.P4
    assert [(one.level, one.reason) for one in core.tick(6 * MS)] == [
        (Level.P6, "cannot be in time: its deadline passed 1.0 ms ago")
    ]


def test_a_constant_rho_takes_its_part_of_every_port() -> None:
    """3 MB take 6 ms of half of the port."""
    assert first(busy("triage(rho=0.5)"), s3("f", size_mb=3, due_ms=5)).level is Level.P6
    assert first(busy("triage(rho=off)"), s3("f", size_mb=3, due_ms=5)).level is Level.P4


def test_options_that_make_no_sense_are_refused() -> None:
    for option in ("levels=1", "urgent=0", "urgent=1.5", "aside=-1", "rho=0.99", "recheck_ns=1"):
        with pytest.raises(ValueError, match=option.partition("=")[0]):
            make_policy(f"triage({option})")
