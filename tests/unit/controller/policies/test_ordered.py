"""Policies that order flows by a key: the key, and the level that it gets."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keyed_world import MS, early, first, order_of, s3, scheduler, with_batch
from scheduling_world import in_force

from controller.flow import Level, Stage
from controller.policies import PolicyError, make_policy, policy_options

KEYED = ("edf", "edf-all", "fifo", "llf", "reverse", "sjf")


# --- keys -----------------------------------------------------------------------------------------


def test_sjf_orders_by_size() -> None:
    flows = [s3("of 3", size_mb=3), s3("of 1", size_mb=1), s3("of 2", size_mb=2)]
    assert order_of(scheduler("sjf", exact=True), flows) == ["of 1", "of 2", "of 3"]


def test_fifo_orders_by_the_moment_of_submission() -> None:
    core = scheduler("fifo", exact=True)
    assert first(core, s3("one"), at_ms=1).order < first(core, s3("other"), at_ms=2).order
    assert first(core, s3("same moment"), at_ms=2).order == core.view.flows["other"].order


def test_edf_puts_flows_without_a_deadline_of_their_own_behind_and_equal() -> None:
    core = with_batch("edf", {"r": 1})
    late = first(core, s3("late", due_ms=500))
    soon = first(core, s3("soon", due_ms=5))
    collective = first(core, early("s2", Stage.COLLECTIVE))
    reuse = first(core, early("s1", Stage.KV_REUSE, request="r"))
    assert soon.order < late.order < collective.order == reuse.order


def test_edf_all_gives_each_flow_the_deadline_of_who_waits_for_it() -> None:
    """S1 of `slow`: 30. S3: its own 20. S2: 10, the earliest of its batch. The last has none."""
    core = with_batch("edf-all", {"slow": 30, "quick": 10})
    flows = [
        s3("none"),
        early("s1 of slow", Stage.KV_REUSE, request="slow"),
        s3("s3 due 20", due_ms=20),
        early("s2", Stage.COLLECTIVE),
    ]
    assert order_of(core, flows) == ["s2", "s3 due 20", "s1 of slow", "none"]


def test_reverse_is_llf_backwards() -> None:
    """Latest starts are 19, 9 and 14. A flow without a deadline can wait for ever."""
    flows = [s3("19", due_ms=20), s3("9", due_ms=10), s3("14", due_ms=15), s3("never")]
    assert order_of(scheduler("llf", exact=True), flows) == ["9", "14", "19", "never"]
    assert order_of(scheduler("reverse", exact=True), flows) == ["never", "19", "14", "9"]


# --- levels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "levels"), [("edf-all", ["P5", "P4", "P2", "P1"]), ("edf", ["P4", "P3", "P2", "P1"])]
)
def test_a_flow_climbs_while_its_deadline_comes_closer(spec: str, levels: list[str]) -> None:
    """Slacks of 100, 200, 300, 400 ms are seen, the last when all others are smaller: on the lowest
    level. Then 3, 2, 1 and none of the four are smaller than what is left of it: of six levels 4.5, 3,
    1.5, 0; of the five that edf has for deadlines 3.75, 2.5, 1.25, 0."""
    core = scheduler(f"{spec}(recheck_ns={15 * MS})")
    for due_ms in (100, 200, 300, 400):
        first(core, s3(f"due {due_ms}", due_ms=due_ms))
    said = [each for at in range(15, 400, 15) for each in core.tick(at * MS)]
    assert [each.level.name for each in said if each.flow == "due 400"] == levels


def test_edf_keeps_the_lowest_level_for_flows_without_a_deadline() -> None:
    core = scheduler("edf(levels=3)")
    levels = {first(core, s3(f"due {at}", due_ms=at)).level for at in (10, 20, 30, 40)}
    assert levels <= {Level.P1, Level.P2}
    assert first(core, s3("none")).level is Level.P3


def test_fifo_lifts_a_flow_that_is_older_than_flows_get() -> None:
    """One flow took 8 ms. A new flow is younger than that: P6. At the tick of 20 ms it is 10 ms old."""
    core = scheduler("fifo")
    first(core, s3("done"))
    core.completion(8 * MS, "done")
    assert first(core, s3("new"), at_ms=10).level is Level.P6
    core.tick(15 * MS)
    assert in_force(core, "new") is Level.P6
    assert [said.level for said in core.tick(20 * MS)] == [Level.P1]


@pytest.mark.parametrize("spec", KEYED)
def test_nothing_is_looked_at_while_nothing_is_active(spec: str) -> None:
    core = scheduler(spec)
    assert core.next_tick_ns() is None
    first(core, s3("f", due_ms=5))
    core.completion(1 * MS, "f")
    assert core.next_tick_ns() is None


@pytest.mark.parametrize("spec", ["sjf", "reverse", "llf", "edf", "edf-all", "fifo"])
def test_an_exact_order_by_a_fixed_key_needs_no_second_look(spec: str) -> None:
    core = scheduler(spec, exact=True)
    first(core, s3("f", due_ms=5))
    assert core.next_tick_ns() is None


flows = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=30)


@given(flows, st.sampled_from(["sjf", "reverse"]), st.integers(2, 6))
@settings(max_examples=60)
def test_levels_follow_a_static_key_among_flows_of_one_moment(
    made: list[tuple[int, int]], name: str, levels: int
) -> None:
    """The keys: the size, and minus (deadline - 1 ms per MB)."""
    core = scheduler(f"{name}(levels={levels})")
    ranked = []
    for number, (size_mb, due_ms) in enumerate(made):
        said = first(core, s3(f"f{number}", size_mb=size_mb, due_ms=due_ms))
        ranked.append((size_mb if name == "sjf" else size_mb - due_ms, said.level))
    ranked.sort()
    assert {level for _, level in ranked} <= set(list(Level)[1 : levels + 1])
    assert all(one[1] <= other[1] for one, other in pairwise(ranked))
    assert all(one[1] == other[1] for one, other in pairwise(ranked) if one[0] == other[0])


@given(flows, st.sampled_from(["sjf", "edf", "edf-all", "llf", "reverse"]))
@settings(max_examples=60)
def test_an_exact_order_is_that_of_the_keys(made: list[tuple[int, int]], spec: str) -> None:
    keys = {
        "sjf": lambda size, due: size,
        "edf": lambda size, due: due,
        "edf-all": lambda size, due: due,
        "llf": lambda size, due: due - size,
        "reverse": lambda size, due: size - due,
    }
    core = scheduler(spec, exact=True)
    pairs = []
    for number, (size_mb, due_ms) in enumerate(made):
        said = first(core, s3(f"f{number}", size_mb=size_mb, due_ms=due_ms))
        assert said.level is Level.P3
        pairs.append((keys[spec](size_mb, due_ms), said.order))
    for one, other in pairwise(sorted(pairs)):
        assert (one[0] == other[0]) == (one[1] == other[1])
        assert one[1] <= other[1]


# --- words and options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("sjf", "2 MB, 25% of recent traffic was smaller"),
        ("edf", "due in 20.0 ms, 25% of recent traffic was due sooner"),
        ("edf-all", "request due in 20.0 ms, 25% of recent traffic was due sooner"),
        ("llf", "laxity 18.0 ms, 25% of recent traffic had less"),
        ("reverse", "laxity 18.0 ms, 75% of recent traffic had more"),
    ],
)
def test_a_reason_says_where_the_flow_ranks(spec: str, reason: str) -> None:
    """Sizes 1, 3, then 2 MB; due at 10, 40, then 20 ms; latest starts 9, 37, then 18. Of the 4 MB seen
    the small flow is 1, the large one 3."""
    core = scheduler(spec)
    first(core, s3("small", size_mb=1, due_ms=10))
    core.completion(0, "small")
    first(core, s3("large", size_mb=3, due_ms=40))
    core.completion(0, "large")
    assert first(core, s3("middle", size_mb=2, due_ms=20)).reason == reason


def test_a_reason_says_when_a_neighbour_decided() -> None:
    """The first flow is on P3. One of half its size ranks above it; one of the same size joins it."""
    core = scheduler("sjf")
    assert first(core, s3("one", size_mb=2)).reason == "2 MB, the first seen"
    again = first(core, s3("again", size_mb=2))
    assert again.reason == "2 MB, 50% of recent traffic was smaller; P4 by rank, P3 to keep the order"


@pytest.mark.parametrize("spec", KEYED)
def test_the_scenario_sets_how_many_levels_there_are(spec: str) -> None:
    assert make_policy(spec, levels=3, recheck_ns=7_000).options.levels == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("sjf(levels=7)", "levels must be 2 to 6, not 7"),
        ("edf(levels=1)", "levels must be 2 to 6, not 1"),
        ("fifo(recheck_ns=0)", "recheck_ns must be 1000 to 1e15, not 0"),
        ("llf(stall=never)", "cannot take stall=never; it wants on or off"),
    ],
)
def test_options_out_of_range_are_refused(spec: str, complaint: str) -> None:
    with pytest.raises(PolicyError) as refused:
        make_policy(spec)
    assert complaint in str(refused.value)


@pytest.mark.parametrize("name", KEYED)
def test_every_option_is_on_the_page(name: str) -> None:
    page = (Path(__file__).parents[4] / "docs" / "policies" / f"{name}.md").read_text()
    assert all(f"| `{line.split('=')[0]}` |" in page for line in [one.line for one in policy_options(name)])
