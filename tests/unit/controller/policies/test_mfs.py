"""MFS flow by flow: first levels, promotions, their reasons, and each option."""

import pytest
from scheduling_world import due, in_force

from controller.flow import Batch, Flow, Level, Stage
from controller.policies import make_policy
from controller.scheduler import Scheduler

UP, DOWN, OTHER = "h3->s1", "s1->h2", "h4->s1"
PORTS = dict.fromkeys((UP, DOWN, OTHER), 100_000_000_000)  # 12.5 MB a millisecond
MS = 1_000_000
MB = 1_000_000


class World:
    """A scheduler with batch `a` (RED 100 ms) and batch `b` (RED 200 ms), both at layer 0 of 8."""

    def __init__(self, spec: str, *, exact: bool = False) -> None:
        self.core = Scheduler(make_policy(spec), ports=PORTS, exact=exact)
        for name, deadline_ms in (("a", 100), ("b", 200)):
            self.core.batch_started(0, Batch(id=name, layers=8, requests=due(deadline_ms * MS)))

    def submit(
        self,
        name: str,
        stage: Stage,
        size: int = MB,
        *,
        batch: str | None = "a",
        layer: int | None = 0,
        due_ms: float | None = None,
        ports: tuple[str, ...] = (UP,),
    ) -> tuple[Level, str]:
        deadline = None if due_ms is None else round(due_ms * MS)
        load = dict.fromkeys(ports, size)
        said = self.core.submit(
            0,
            Flow(
                id=name,
                stage=stage,
                size_bytes=size,
                load=load,
                batch=batch,
                layer=layer,
                deadline_ns=deadline,
            ),
        )[0]
        return said.level, said.reason


S1, S2, S3 = Stage.KV_REUSE, Stage.COLLECTIVE, Stage.P2D


# --- S1 and S2 ----------------------------------------------------------------------------------


def test_a_collective_enters_high_directly() -> None:
    assert World("mfs").submit("f", S2, layer=5) == (Level.P2, "S2 blocks compute")


def test_kv_reuse_starts_as_far_down_as_its_layer_is_away() -> None:
    world = World("mfs")
    said = [world.submit(str(layer), S1, layer=layer) for layer in (0, 1, 4, 7)]
    assert said == [
        (Level.P2, "RLI 0"),
        (Level.P3, "RLI 1"),
        (Level.P4, "RLI 4"),
        (Level.P4, "RLI 7"),
    ]


def test_kv_reuse_moves_up_one_step_per_layer_boundary() -> None:
    world = World("mfs(s3_levels=1)")
    world.submit("f", S1, layer=3)
    said = [one for layer in (1, 2, 3, 4) for one in world.core.layer_advanced(layer, "a", layer)]
    steps = [(one.previous, one.level) for one in said]
    assert steps == [(Level.P5, Level.P4), (Level.P4, Level.P3), (Level.P3, Level.P2)]


def test_a_layer_boundary_moves_only_flows_of_its_batch() -> None:
    world = World("mfs")
    world.submit("f", S1, batch="b", layer=3)
    assert world.core.layer_advanced(1, "a", 3) == []


def test_at_equal_rli_the_batch_with_the_smaller_red_comes_first() -> None:
    """The RED of b is 200 ms, the RED of a 100 ms. Both flows hold up compute and share the uplink."""
    world = World("mfs")
    world.submit("a", S2)
    level, reason = world.submit("b", S1, batch="b")
    assert (level, reason) == (Level.P3, "RLI 0, one level lower: the RED of batch a is smaller")


@pytest.mark.parametrize(
    ("first", "second", "level"),
    [
        ({"batch": "b"}, {"batch": "a"}, Level.P2),  # the smaller RED itself
        ({"batch": "a", "ports": (OTHER,)}, {"batch": "b"}, Level.P2),  # no port in common
        ({"batch": "a", "layer": 2}, {"batch": "b"}, Level.P2),  # RLI 2 against 0
        ({"batch": "a", "layer": 1}, {"batch": "b", "layer": 1}, Level.P4),  # P3, less one
        ({"batch": "a", "layer": 6}, {"batch": "b", "layer": 6}, Level.P4),  # lower is only S3
    ],
)
def test_red_decides_nothing_but_a_tie(
    first: dict[str, object], second: dict[str, object], level: Level
) -> None:
    world = World("mfs")
    world.submit("first", S1, **first)  # type: ignore[arg-type]
    assert world.submit("second", S1, **second)[0] is level  # type: ignore[arg-type]


def test_a_batch_that_arrives_later_can_have_the_smaller_red() -> None:
    """`a` met no rival at its first fetch. Then `c` comes with a RED of 50 ms, and holds up compute there."""
    world = World("mfs")
    assert world.submit("f", S1, batch="a") == (Level.P2, "RLI 0")
    world.core.batch_started(0, Batch(id="c", layers=8, requests=due(50 * MS)))
    world.submit("share", S2, batch="c")
    level, reason = world.submit("g", S1, batch="a")
    assert (level, reason) == (Level.P3, "RLI 0, one level lower: the RED of batch c is smaller")


def test_a_rival_counts_by_the_layer_that_it_has_come_to() -> None:
    """A fetch of `b` is 1 layer ahead. That of `a`, for layer 2, is as far ahead once `a` is at layer 1."""
    world = World("mfs")
    world.submit("rival", S1, batch="a", layer=2)
    assert world.submit("f", S1, batch="b", layer=1) == (Level.P3, "RLI 1")
    world.core.layer_advanced(0, "a", 1)
    level, reason = world.submit("g", S1, batch="b", layer=1)
    assert (level, reason) == (Level.P4, "RLI 1, one level lower: the RED of batch a is smaller")


def test_a_collective_never_gives_way_to_a_smaller_red() -> None:
    world = World("mfs")
    world.submit("a", S2)
    assert world.submit("b", S2, batch="b")[0] is Level.P2


def test_a_tie_that_is_over_is_undone_at_the_next_layer_boundary() -> None:
    """Layer 1 while layer 0 runs is P3, or P4 behind `a`. At layer 1 RLI is 0, and `a` is complete."""
    world = World("mfs")
    world.submit("a", S1, layer=1)
    assert world.submit("b", S1, batch="b", layer=1)[0] is Level.P4
    world.core.completion(1, "a")
    assert [said.level for said in world.core.layer_advanced(2, "b", 1)] == [Level.P2]


# --- S3 -----------------------------------------------------------------------------------------


def test_the_reason_of_an_s3_level_shows_the_sum() -> None:
    """41 MB = 328 Mbit; 6.1887 ms carry 618.87 Mbit: 0.53. The deadlines of the first two are
    earlier, so their 30 MB count; the fourth is due later and does not."""
    world = World("mfs(rho=off)")
    world.submit("one", S3, 10 * MB, due_ms=5)
    world.submit("two", S3, 20 * MB, due_ms=6)
    world.submit("later", S3, 99 * MB, due_ms=50)
    said = world.submit("three", S3, 11 * MB, due_ms=6.1887)
    assert said == (Level.P1, "MLU 0.53 >= 0.50 on h3->s1 (3 flows, 41 MB due)")


def test_the_port_with_the_highest_mlu_decides() -> None:
    """5 MB in 10 ms: 40 of 1,000 Mbit. On the downlink 45 MB are due by then: 360 of 1,000, 0.36."""
    world = World("mfs(rho=off)")
    world.submit("ahead", S3, 40 * MB, due_ms=10, ports=(DOWN,))
    said = world.submit("f", S3, 5 * MB, due_ms=10, ports=(UP, DOWN))
    assert said == (Level.P5, "MLU 0.36 >= 0.125 on s1->h2 (2 flows, 45 MB due)")


def test_with_its_own_demand_a_flow_does_not_see_the_others() -> None:
    """Own 5 MB in 10 ms: 0.04 on either port; the first one is named."""
    world = World("mfs(rho=off,demand=own)")
    world.submit("ahead", S3, 40 * MB, due_ms=10, ports=(DOWN,))
    said = world.submit("f", S3, 5 * MB, due_ms=10, ports=(UP, DOWN))
    assert said == (Level.P6, "MLU 0.04 < 0.125 on h3->s1 (1 flow, 5 MB due)")


def test_rho_given_as_a_number_scales_mlu() -> None:
    """5 MB in 10 ms: 0.04; a tenth of the port is left: 0.4."""
    said = World("mfs(rho=0.9)").submit("f", S3, 5 * MB, due_ms=10)
    assert said == (Level.P5, "MLU 0.40 >= 0.125 on h3->s1 (1 flow, 5 MB due, rho 0.90)")


def test_measured_rho_sees_the_early_traffic_ahead_on_the_port() -> None:
    """In a window of 10 ms the port carries 125 MB; 50 MB of S2 are submitted: rho 0.4. MLU of
    18.75 MB due in 5 ms: 150 / 500 = 0.3, over 0.6: 0.5, the top level."""
    world = World("mfs(rho_window_ms=10)")
    world.submit("share", S2, 50 * MB)
    said = world.submit("f", S3, 18_750_000, due_ms=5)
    assert said == (Level.P1, "MLU 0.50 >= 0.50 on h3->s1 (1 flow, 18.8 MB due, rho 0.40)")


def test_s3_waits_for_a_layer_boundary_of_its_batch() -> None:
    """10 MB due in 20 ms: 80 / 2000 = 0.04, P6. After 15 ms 5 are left: 0.16, P5; after 19.2 ms
    0.8: 80 / 80 = 1, P1. Progress in between changes nothing: 5 MB are still to go, MLU 0.5."""
    world = World("mfs(rho=off)")
    assert world.submit("f", S3, 10 * MB, due_ms=20)[0] is Level.P6
    said = world.core.layer_advanced(15 * MS, "a", 1)
    assert [(one.previous, one.level) for one in said] == [(Level.P6, Level.P5)]
    assert said[0].reason == "MLU 0.16 >= 0.125 on h3->s1 (1 flow, 10 MB due)"
    assert world.core.progress(round(19.2 * MS), "f", 5 * MB) == []
    assert world.core.tick(round(19.2 * MS)) == []
    assert [one.level for one in world.core.layer_advanced(round(19.2 * MS), "a", 2)] == [Level.P1]


def test_s3_is_looked_at_periodically_once_its_batch_has_no_compute_left() -> None:
    """10 MB due in 20 ms: 0.04, P6. Compute over at 1 ms, looks at 6 (80 / 1400 = 0.06), 11 (80 /
    900 = 0.09), 16 (80 / 400 = 0.2, P5)."""
    world = World("mfs(rho=off)")
    world.submit("f", S3, 10 * MB, due_ms=20)
    assert world.core.layer_advanced(1 * MS, "a", 8) == []
    heard = []
    while (due := world.core.next_tick_ns()) is not None and due < 20 * MS:
        heard += [(said.time_ns // MS, said.level) for said in world.core.tick(due)]
    assert heard == [(16, Level.P5)]


def test_a_promoted_flow_stays_up_when_its_urgency_falls() -> None:
    """10 MB due in 10 ms with 36 MB due before it: 368 / 1000 = 0.37, P5. Without them 0.08."""
    world = World("mfs(rho=off)")
    world.submit("ahead", S3, 36 * MB, due_ms=9)
    assert world.submit("f", S3, 10 * MB, due_ms=10)[0] is Level.P5
    world.core.completion(0, "ahead")
    assert world.core.layer_advanced(0, "a", 1) == []


def test_s3_that_is_late_or_has_no_deadline_or_no_port() -> None:
    world = World("mfs(rho=off)")
    assert world.submit("late", S3, MB, due_ms=-2) == (Level.P6, "its deadline passed 2.0 ms ago")
    assert world.submit("whenever", S3, due_ms=None) == (Level.P6, "S3 without a deadline")
    assert world.submit("inside", S3, due_ms=1, ports=()) == (Level.P6, "S3 with no port to share")


def test_late_s3_can_be_given_the_top_level_instead() -> None:
    assert World("mfs(late=top)").submit("late", S3, MB, due_ms=-2)[0] is Level.P1


def test_s3_that_was_on_its_way_up_keeps_its_level_when_its_deadline_passes() -> None:
    """20 MB due in 10 ms: 160 / 1000 = 0.16, P5. At 11 ms it is late, but promotions are never undone."""
    world = World("mfs(rho=off)")
    assert world.submit("f", S3, 20 * MB, due_ms=10)[0] is Level.P5
    assert world.core.layer_advanced(11 * MS, "a", 1) == []
    assert in_force(world.core, "f") is Level.P5


def test_the_most_urgent_s3_passes_a_collective_and_all_other_s3_waits_for_the_last_kv_reuse() -> None:
    """75 MB due in 12 ms are MLU 0.5, and 74 MB are 0.493."""
    world = World("mfs(rho=off,demand=own)")
    collective, reuse = world.submit("s2", S2)[0], world.submit("s1", S1, layer=7)[0]
    assert world.submit("urgent", S3, 75 * MB, due_ms=12)[0] < collective
    assert world.submit("waits", S3, 74 * MB, due_ms=12)[0] > reuse > collective


def test_s3_can_climb_among_kv_reuse_and_collectives() -> None:
    """5 MB due in 20 ms: 40 / 2000 = 0.02, P4. At 16 ms 40 / 400 = 0.1, P3; at 18 ms 0.2, P2."""
    world = World("mfs(rho=off,s3_levels=0)")
    assert world.submit("f", S3, 5 * MB, due_ms=20)[0] is Level.P4
    heard = [world.core.layer_advanced(ms * MS, "a", i)[0].level for i, ms in ((1, 16), (2, 18))]
    assert heard == [Level.P3, Level.P2]


# --- arbitration where a fabric keeps an exact order --------------------------------------------


@pytest.mark.parametrize("spec", ["mfs", "mfs(s3_levels=0)"])
def test_an_exact_order_goes_by_rli_then_red_and_s3_comes_last(spec: str) -> None:
    """S1 of layers 4 and 5 is on one level, with S3 or above it. Batch `a` has the smaller RED."""
    world = World(spec, exact=True)
    for name, batch, layer in (("b5", "b", 5), ("a5", "a", 5), ("b4", "b", 4), ("a4", "a", 4)):
        world.submit(name, S1, batch=batch, layer=layer)
    world.submit("s3", S3, due_ms=None)
    flows = world.core.view.flows
    assert flows["s3"].level is Level.P6
    assert len({flow.level for name, flow in flows.items() if name != "s3"}) == 1
    served = sorted(flows, key=lambda name: (flows[name].level, flows[name].order))
    assert served == ["a4", "b4", "a5", "b5", "s3"]


def test_the_exact_order_of_s1_follows_the_layers_of_its_batch() -> None:
    """Both are needed at layer 7. Batch `b`, of the larger RED, gets to layer 2: RLI 5 before 7."""
    world = World("mfs", exact=True)
    for batch in ("a", "b"):
        world.submit(f"{batch}7", S1, batch=batch, layer=7)
    flows = world.core.view.flows
    assert flows["a7"].order < flows["b7"].order
    world.core.layer_advanced(0, "b", 2)
    assert flows["b7"].order < flows["a7"].order


def test_red_off_leaves_equal_rli_equal_in_an_exact_order() -> None:
    world = World("mfs(red=off)", exact=True)
    for batch in ("a", "b"):
        world.submit(f"{batch}7", S1, batch=batch, layer=7)
    assert world.core.view.flows["a7"].order == world.core.view.flows["b7"].order


# --- switches -----------------------------------------------------------------------------------


def test_rli_off_keeps_all_kv_reuse_on_one_level() -> None:
    world = World("mfs(rli=off)")
    assert {world.submit(str(layer), S1, layer=layer)[0] for layer in range(5)} == {Level.P3}
    assert world.core.layer_advanced(1, "a", 4) == []


def test_mlu_off_keeps_s3_on_the_lowest_level() -> None:
    world = World("mfs(mlu=off)")
    assert world.submit("f", S3, 99 * MB, due_ms=1) == (Level.P6, "S3, MLU off")
    assert world.core.layer_advanced(MS, "a", 8) == []


def test_red_off_breaks_no_tie() -> None:
    world = World("mfs(red=off)")
    world.submit("a", S2)
    assert world.submit("b", S1, batch="b") == (Level.P2, "RLI 0")


def test_monotonic_off_lets_a_flow_fall() -> None:
    """As in the test above, 0.37 becomes 0.08: P6."""
    world = World("mfs(rho=off,monotonic=off)")
    world.submit("ahead", S3, 36 * MB, due_ms=9)
    world.submit("f", S3, 10 * MB, due_ms=10)
    world.core.completion(0, "ahead")
    (said,) = world.core.layer_advanced(0, "a", 1)
    assert (said.previous, said.level) == (Level.P5, Level.P6)


def test_monotonic_off_lets_a_smaller_red_push_kv_reuse_down() -> None:
    """`b` holds up compute at P2; `a` arrives on the port and has the smaller RED."""
    for spec, level in (("mfs", Level.P2), ("mfs(monotonic=off)", Level.P3)):
        world = World(spec)
        assert world.submit("b", S1, batch="b")[0] is Level.P2
        world.submit("a", S2)
        world.core.layer_advanced(1, "b", 1)
        assert in_force(world.core, "b") is level


def test_layer_boundary_off_looks_at_s3_of_a_computing_batch_too() -> None:
    """10 MB due in 20 ms: 0.04; at the look 15 ms later 0.16; a report 19.2 ms later, 0.5."""
    world = World("mfs(rho=off,layer_boundary=off)")
    world.submit("f", S3, 10 * MB, due_ms=20)
    assert world.core.next_tick_ns() == 5 * MS
    assert [said.level for said in world.core.tick(15 * MS)] == [Level.P5]
    assert [said.level for said in world.core.progress(round(19.2 * MS), "f", 5 * MB)] == [Level.P1]
