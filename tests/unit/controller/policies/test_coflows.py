"""sebf and aalo, against finish times worked out by hand."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from fluid import Arrival, Happening, Outcome, run
from scheduling_world import in_force

from controller.flow import Assignment, Flow, GroupAssignment, Level, PortId, Stage
from controller.policies import PolicyError, make_policy, policy_options
from controller.scheduler import Scheduler

P = "h1->s1"
Q = "h2->s1"
ASIDE = "h3->s1"
S = 1_000_000_000
MB = 1_000_000

PORTS: dict[PortId, int] = {P: 8 * MB, Q: 8 * MB, ASIDE: 8 * MB}
"""One MB in a second on each."""


def play(spec: str, happenings: Sequence[Happening], *, exact: bool = False, speed: int = 1) -> Outcome:
    bps = {port: speed * rate for port, rate in PORTS.items()}
    return run(Scheduler(make_policy(spec), ports=bps, exact=exact), bps, happenings)


def scheduler_of(spec: str, *, exact: bool = False) -> Scheduler:
    return Scheduler(make_policy(spec), ports=PORTS, exact=exact)


def flow(name: str, size_mb: int, coflow: str | None = None, port: PortId = P) -> Flow:
    size = size_mb * MB
    return Flow(id=name, stage=Stage.COLLECTIVE, size_bytes=size, load={port: size}, coflow=coflow)


def look(at_ns: int) -> Arrival:
    """One byte on a link of its own: an event, before which all progress is reported."""
    return Arrival(at_ns, Flow(id=f"look {at_ns}", stage=Stage.KV_REUSE, size_bytes=1, load={ASIDE: 1}))


@pytest.mark.parametrize("name", ["sebf", "aalo"])
def test_every_option_is_on_the_page(name: str) -> None:
    page = (Path(__file__).parents[4] / "docs" / "policies" / f"{name}.md").read_text()
    for line in [one.line for one in policy_options(name)]:
        assert f"| `{line.split('=')[0]}` |" in page


# --- sebf ---------------------------------------------------------------------------------------


def test_sebf_serves_the_smaller_bottleneck_first_not_the_smaller_coflow() -> None:
    """X: 3 MB on P, Gamma 3 s. Y: 2 MB on P and 2 MB on Q, 4 MB in all, but Gamma 2 s. Y [0, 2] on both
    ports, X [2, 5]."""
    outcome = play(
        "sebf",
        [
            Arrival(0, flow("x", 3, "X")),
            Arrival(0, flow("y on P", 2, "Y")),
            Arrival(0, flow("y on Q", 2, "Y", Q)),
        ],
        exact=True,
    )
    assert {name: outcome.finish_s(name) for name in ("x", "y on P", "y on Q")} == {
        "x": 5,
        "y on P": 2,
        "y on Q": 2,
    }


def test_sebf_leaves_a_port_that_the_first_coflow_does_not_use_to_the_second() -> None:
    """X: 1 MB on P, Gamma 1 s. Y: 2 MB on P, 1 MB on Q. Y waits on P until 1 s, and not at all on Q."""
    outcome = play(
        "sebf",
        [
            Arrival(0, flow("y on P", 2, "Y")),
            Arrival(0, flow("y on Q", 1, "Y", Q)),
            Arrival(0, flow("x", 1, "X")),
        ],
        exact=True,
    )
    assert [outcome.finish_s(name) for name in ("x", "y on P", "y on Q")] == [1, 3, 1]


def test_a_member_that_joins_raises_gamma_and_takes_the_others_along() -> None:
    """All on P. X has 1 MB, Y 2 MB: X is served. At 0.5 s, 2 MB join X: its Gamma is 2.5 s, above Y's 2 s,
    and the first flow of X stops as well. Y [0.5, 2.5]. Then the flows of X, of 0.5 and 2 MB, share: the
    first ends at 3.5 s, the second has the last 1.5 MB to itself, until 5 s."""
    outcome = play(
        "sebf",
        [
            Arrival(0, flow("x1", 1, "X")),
            Arrival(0, flow("y", 2, "Y")),
            Arrival(S // 2, flow("x2", 2, "X")),
        ],
        exact=True,
    )
    assert [outcome.finish_s(name) for name in ("x1", "y", "x2")] == [Fraction(7, 2), Fraction(5, 2), 5]


def test_a_member_that_completes_lowers_gamma_for_the_rest() -> None:
    """X: 3 MB on P and 1 MB on Q, Gamma 3 s. When the flow on P has completed, Gamma is 1 s."""
    scheduler = scheduler_of("sebf", exact=True)
    scheduler.submit(0, flow("on P", 3, "X"))
    assert scheduler.submit(0, flow("on Q", 1, "X", Q))[0].order == 3 * S
    assert scheduler.completion(S, "on P") == []
    (said,) = scheduler.tick(S)
    assert (said.flow, said.order) == ("on Q", 1 * S)


def test_flows_that_complete_at_one_instant_move_the_others_once() -> None:
    """4 MB, 2 MB and 1 MB on P: when the first two have completed, Gamma is 1 s, and one tick says so."""
    scheduler = scheduler_of("sebf", exact=True)
    for name, size_mb in (("a", 4), ("b", 2), ("c", 1)):
        scheduler.submit(0, flow(name, size_mb, "X"))
    scheduler.tick(0)
    assert scheduler.completion(S, "a") == scheduler.completion(S, "b") == []
    assert scheduler.next_tick_ns() == S
    assert [(one.flow, one.order) for one in scheduler.tick(S)] == [("c", 1 * S)]


def test_a_coflow_is_placed_by_what_it_has_left_then() -> None:
    """X has 3 MB on P and 2 MB on Q. At 1 s, 2 MB are left on P, and 1 MB joins there: 3 s, not 4 s."""
    scheduler = scheduler_of("sebf", exact=True)
    scheduler.submit(0, flow("on P", 3, "X"))
    scheduler.submit(0, flow("on Q", 2, "X", Q))
    scheduler.tick(0)
    scheduler.progress(S, "on P", 2 * MB)
    (said,) = scheduler.submit(S, flow("joins", 1, "X"))
    assert said.order == 3 * S


def test_a_fabric_that_moves_groups_gets_one_answer_and_is_asked_what_they_have_left() -> None:
    """The fabric knows that 2.5 MB are left on P, although it has reported nothing."""
    scheduler = scheduler_of("sebf", exact=True)
    left = {P: 3 * MB, Q: 1 * MB}
    scheduler.move_groups({"coflow X": left}.__getitem__)
    for name, size_mb, port in (("a", 3, P), ("b", 1, Q), ("c", 1, Q)):
        scheduler.submit(0, flow(name, size_mb, "X", port))
    left[P] = 5 * MB // 2
    scheduler.completion(S, "b")
    (said,) = scheduler.tick(S)
    assert (said.group, said.level, said.order) == ("coflow X", Level.P3, 5 * S // 2)


def test_all_coflows_are_placed_anew_when_one_comes_or_goes_if_the_fabric_knows_what_they_have_left() -> None:
    """X had 5 MB on P, and has 2 MB left when Y comes with 3 MB. When Y has ended, X has 1 MB left."""
    scheduler = scheduler_of("sebf", exact=True)
    left = {"coflow X": {P: 5 * MB}, "coflow Y": {P: 3 * MB}}
    scheduler.move_groups(left.__getitem__)
    scheduler.submit(0, flow("x", 5, "X"))
    scheduler.tick(0)
    left["coflow X"] = {P: 2 * MB}

    assert [one.order for one in scheduler.submit(3 * S, flow("y", 3, "Y"))] == [3 * S]
    (said,) = scheduler.tick(3 * S)
    assert (said.group, said.order) == ("coflow X", 2 * S)

    left["coflow X"] = {P: 1 * MB}
    scheduler.completion(8 * S, "y")
    (said,) = scheduler.tick(8 * S)
    assert (said.group, said.order) == ("coflow X", 1 * S)


def test_progress_alone_moves_no_coflow() -> None:
    scheduler = scheduler_of("sebf", exact=True)
    scheduler.submit(0, flow("x", 3, "X"))
    assert scheduler.progress(S, "x", 1 * MB) == []


def test_flows_that_join_at_one_instant_move_the_others_once() -> None:
    """Gamma is 1 s, 2 s and 3 s as they join. The third starts with 3 s; one tick moves the others."""
    scheduler = scheduler_of("sebf", exact=True)
    said = [scheduler.submit(0, flow(name, 1, "X")) for name in ("a", "b", "c")]
    assert [[one.order for one in each] for each in said] == [[1 * S], [2 * S], [3 * S]]
    assert scheduler.next_tick_ns() == 0
    assert {one.flow: one.order for one in scheduler.tick(0)} == {"a": 3 * S, "b": 3 * S}
    assert scheduler.next_tick_ns() is None


def test_sebf_maps_gamma_to_levels_and_keeps_a_coflow_together() -> None:
    """Six coflows have come and gone, with Gamma 1 to 6 s. For 1 s none is smaller, one is equal (a half):
    floor(6 * 0.5 / 6) = 0, P1. 5 s more join: 6 s, floor(6 * 5.5 / 6) = 5: P6, for both flows."""
    scheduler = scheduler_of("sebf")
    for gamma in range(1, 7):
        scheduler.submit(0, flow(f"{gamma} s", gamma, f"of {gamma} s"))
        scheduler.completion(0, f"{gamma} s")
    assert scheduler.submit(0, flow("a", 1, "X"))[0].level is Level.P1
    assert scheduler.submit(0, flow("b", 5, "X"))[0].level is Level.P6
    (said,) = scheduler.tick(0)
    assert (said.flow, said.level) == ("a", Level.P6)
    assert said.reason == f"coflow X (2 flows): Gamma 6000.000 ms on {P}"


@pytest.mark.parametrize("exact", [False, True])
def test_sebf_forgets_a_coflow_with_its_last_flow(exact: bool) -> None:
    """X had 3 MB and 2 MB, and both have completed. A flow of 1 MB under the same name has Gamma 1 s."""
    scheduler = scheduler_of("sebf", exact=exact)
    scheduler.submit(0, flow("a", 3, "X"))
    scheduler.submit(0, flow("b", 2, "X"))
    scheduler.completion(S, "a")
    scheduler.completion(S, "b")
    assert scheduler.next_tick_ns() is None
    assert "(1 flow): Gamma 1000.000 ms" in scheduler.submit(S, flow("c", 1, "X"))[0].reason


def test_flows_without_a_coflow_are_coflows_of_their_own() -> None:
    """1 MB goes before 2 MB, though the larger came first. A coflow named like a flow is another coflow."""
    outcome = play(
        "sebf",
        [Arrival(0, flow("x", 2)), Arrival(0, flow("y", 1)), Arrival(0, flow("z", 4, "y"))],
        exact=True,
    )
    assert [outcome.finish_s(name) for name in ("x", "y", "z")] == [3, 1, 7]


# --- aalo ---------------------------------------------------------------------------------------


def test_aalo_puts_a_long_coflow_below_a_fresh_one_after_10_mb() -> None:
    """10 MB/s. The long coflow, 20 MB and 10 MB, shares: at 1 s its flows have sent 5 MB each, 10 MB
    together, and both sink to P2. The fresh one, 5 MB, is served [1, 1.5]. Then 15 MB and 5 MB share: the
    smaller ends at 2.5 s, the larger has its last 10 MB to itself, until 3.5 s."""
    outcome = play(
        "aalo",
        [
            Arrival(0, flow("long a", 20, "long")),
            Arrival(0, flow("long b", 10, "long")),
            Arrival(S, flow("fresh", 5, "fresh")),
        ],
        speed=10,
    )
    assert outcome.levels("long a") == outcome.levels("long b") == [Level.P1, Level.P2]
    assert outcome.levels("fresh") == [Level.P1]
    assert [outcome.finish_s(name) for name in ("fresh", "long b", "long a")] == [
        Fraction(3, 2),
        Fraction(5, 2),
        Fraction(7, 2),
    ]


def test_aalo_in_an_exact_order_serves_a_level_first_come_first_served() -> None:
    """10 MB/s. A (5 MB) at 0, B (2 MB) at 0.1 s: A until 0.5 s, B until 0.7 s. On levels they share: 4 MB
    of A and 2 MB of B are left at 0.1 s, B ends at 0.5 s and A at 0.7 s."""
    arrivals = [Arrival(0, flow("A", 5)), Arrival(S // 10, flow("B", 2))]
    in_order = play("aalo", arrivals, exact=True, speed=10)
    on_levels = play("aalo", arrivals, speed=10)
    assert [in_order.finish_s(name) for name in "AB"] == [Fraction(1, 2), Fraction(7, 10)]
    assert [on_levels.finish_s(name) for name in "AB"] == [Fraction(7, 10), Fraction(1, 2)]


def test_aalo_takes_later_coflows_of_an_exact_level_after_a_long_one_only_until_that_sinks() -> None:
    """10 MB/s. A (20 MB) at 0, B (5 MB) at 0.5 s: A is first until it has sent 10 MB, at 1 s; B [1, 1.5]; the
    rest of A [1.5, 2.5]."""
    arrivals = [Arrival(0, flow("A", 20)), Arrival(S // 2, flow("B", 5)), look(S)]
    outcome = play("aalo", arrivals, exact=True, speed=10)
    assert [outcome.finish_s(name) for name in "AB"] == [Fraction(5, 2), Fraction(3, 2)]


def test_aalo_counts_what_completed_flows_of_an_active_coflow_have_sent() -> None:
    """8 MB of a completed flow and 2 MB of another make 10 MB: P2, also for a flow that joins."""
    scheduler = scheduler_of("aalo")
    scheduler.submit(0, flow("a", 8, "X"))
    scheduler.submit(0, flow("b", 5, "X"))
    assert scheduler.completion(S, "a") == []
    (said,) = scheduler.progress(S, "b", 3 * MB)
    assert (said.level, said.reason) == (Level.P2, "coflow X has sent 10 MB, >= 10 MB")
    assert scheduler.submit(S, flow("c", 1, "X"))[0].level is Level.P2


def test_aalo_moves_all_flows_when_a_completion_passes_the_threshold() -> None:
    scheduler = scheduler_of("aalo")
    scheduler.submit(0, flow("a", 10, "X"))
    scheduler.submit(0, flow("b", 5, "X", Q))
    (said,) = scheduler.completion(S, "a")
    assert (said.flow, said.level) == ("b", Level.P2)


def test_aalo_forgets_a_coflow_with_its_last_flow() -> None:
    scheduler = scheduler_of("aalo")
    scheduler.submit(0, flow("a", 20, "X"))
    scheduler.progress(S, "a", 5 * MB)
    assert in_force(scheduler, "a") is Level.P2
    scheduler.completion(2 * S, "a")
    assert scheduler.submit(2 * S, flow("b", 20, "X"))[0].level is Level.P1


def test_aalo_asks_a_fabric_that_reports_nothing_only_when_a_coflow_can_have_sent_enough() -> None:
    """P and Q carry 1 MB/s each. X can have sent 10 MB at 5 s, but P was shared, and it has sent 8 MB. At 2
    MB/s, the others take until 6 s. Then it is below P1, and 90 MB more take until 51 s at least. Y comes in
    between, and makes the next look an earlier one."""
    scheduler = scheduler_of("aalo", exact=True)
    asked: list[str] = []
    left = {P: 60 * MB, Q: 60 * MB}

    def left_on_ports(group: str) -> dict[PortId, int]:
        asked.append(group)
        return left

    def asked_at(time_ms: int) -> bool:
        before = len(asked)
        told.extend(scheduler.tick(time_ms * S // 1000))
        return len(asked) > before

    told: list[Assignment | GroupAssignment] = []
    scheduler.move_groups(left_on_ports)
    scheduler.submit(0, flow("on P", 60, "X"))
    scheduler.submit(0, flow("on Q", 60, "X", Q))
    assert [time for time in range(1, 4999) if asked_at(time)] == [1]
    left = {P: 57 * MB, Q: 55 * MB}
    assert [time for time in range(4999, 5999) if asked_at(time)] == [5001]
    assert told == []
    left = {P: 56 * MB, Q: 54 * MB}
    assert [time for time in range(5999, 9000) if asked_at(time)] == [6001]
    (said,) = told
    assert scheduler.next_tick_ns() == 51_001 * S // 1000
    scheduler.submit(9 * S, flow("y", 20, "Y"))
    assert scheduler.next_tick_ns() == 9001 * S // 1000
    assert isinstance(said, GroupAssignment)
    assert (said.group, said.level, said.reason) == (
        "coflow X",
        Level.P2,
        "coflow X has sent 10 MB, >= 10 MB",
    )


def test_aalo_has_a_threshold_per_factor_of_ten() -> None:
    """10 MB, 100 MB, 1 GB and so on, one fewer than there are levels: with three, 100 MB is the last."""
    for spec, levels in (("aalo", [1, 2, 3, 4]), ("aalo(levels=3)", [1, 2, 3, 3])):
        scheduler = scheduler_of(spec)
        scheduler.submit(0, flow("f", 2000))
        seen = []
        for sent_mb in (9, 99, 999, 1999):
            scheduler.progress(0, "f", (2000 - sent_mb) * MB)
            seen.append(int(in_force(scheduler, "f")))
        assert seen == levels


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("aalo(levels=1)", "levels must be 2 to 6, not 1"),
        ("aalo(factor=inf)", "factor must be above 1 and finite, not inf"),
        ("sebf(levels=7)", "levels must be 2 to 6, not 7"),
    ],
)
def test_a_wrong_option_is_refused_in_words(spec: str, complaint: str) -> None:
    with pytest.raises(PolicyError) as refused:
        make_policy(spec)
    assert complaint in str(refused.value)
