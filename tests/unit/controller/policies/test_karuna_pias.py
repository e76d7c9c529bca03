"""karuna and pias, against finish times worked out by hand."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from fluid import Arrival, Happening, Outcome, run
from scheduling_world import in_force

from controller.flow import Assignment, Flow, Level, PortId, Stage
from controller.policies import PolicyError, make_policy, policy_options
from controller.scheduler import Scheduler

LINK = "h1->s1"
ASIDE = "h2->s1"
GBPS = 1_000_000_000
S = 1_000_000_000
MS = 1_000_000
MB = 1_000_000

MB_PER_S = 8 * MB
"""A link of this many bit/s: one MB in a second."""


def play(spec: str, link_bps: int, happenings: Sequence[Happening], *, exact: bool = False) -> Outcome:
    bps: dict[PortId, int] = {LINK: link_bps, ASIDE: link_bps}
    return run(Scheduler(make_policy(spec), ports=bps, exact=exact), bps, happenings)


def flow(name: str, size: int, due_ns: int | None = None, *, downstream_ns: int = 0) -> Flow:
    return Flow(
        id=name,
        stage=Stage.P2D,
        size_bytes=size,
        load={LINK: size},
        deadline_ns=due_ns,
        downstream_ns=downstream_ns,
    )


def look(at_ns: int) -> Arrival:
    """One byte on a link of its own: an event, before which all progress is reported."""
    return Arrival(at_ns, Flow(id=f"look {at_ns}", stage=Stage.KV_REUSE, size_bytes=1, load={ASIDE: 1}))


def said_of(outcome: Outcome, name: str) -> list[Assignment]:
    return [said for said in outcome.assignments if said.flow == name]


@pytest.mark.parametrize("name", ["karuna", "pias"])
def test_every_option_is_on_the_page(name: str) -> None:
    page = (Path(__file__).parents[4] / "docs" / "policies" / f"{name}.md").read_text()
    for line in [one.line for one in policy_options(name)]:
        assert f"| `{line.split('=')[0]}` |" in page


# --- pias ---------------------------------------------------------------------------------------


def test_pias_demotes_at_each_threshold_of_bytes_sent() -> None:
    """Thresholds 1 and 2 MB at 1 MB/s. A (4 MB) is alone: P2 at 1 s, P3 at 2 s. Then B (4 MB) arrives
    and passes it on P1, from 3 s on P2; at 4 s it has sent 2 MB and joins A on P3. Both have 2 MB
    left and share: 8 s."""
    outcome = play(
        "pias(levels=3,first_bytes=1000000,factor=2)",
        MB_PER_S,
        [Arrival(0, flow("A", 4 * MB)), look(S), Arrival(2 * S, flow("B", 4 * MB)), look(3 * S), look(4 * S)],
    )
    assert [(said.time_ns // S, said.level) for said in said_of(outcome, "A")] == [
        (0, Level.P1),
        (1, Level.P2),
        (2, Level.P3),
    ]
    assert [(said.time_ns // S, said.level) for said in said_of(outcome, "B")] == [
        (2, Level.P1),
        (3, Level.P2),
        (4, Level.P3),
    ]
    assert outcome.finish_s("A") == outcome.finish_s("B") == 8


def test_pias_lets_a_short_flow_pass_without_knowing_its_size() -> None:
    """A has sent its first 1 MB when B (1 MB) arrives at 1 s: B [1, 2], the rest of A [2, 5]."""
    outcome = play(
        "pias(first_bytes=1000000)", MB_PER_S, [Arrival(0, flow("A", 4 * MB)), Arrival(S, flow("B", 1 * MB))]
    )
    assert [outcome.finish_s(name) for name in "BA"] == [2, 5]


def test_pias_thresholds_cover_flows_from_a_tenth_of_a_megabyte_to_a_hundred() -> None:
    """0.2 MB times 4: 0.2, 0.8, 3.2, 12.8 and 51.2 MB. A threshold that is reached is passed."""
    scheduler = Scheduler(make_policy("pias"), ports={LINK: GBPS})
    scheduler.submit(0, flow("f", 100 * MB))
    levels = []
    for sent in (199_999, 200_000, 800_000, 3_200_000, 12_800_000, 51_200_000):
        scheduler.progress(0, "f", 100 * MB - sent)
        levels.append(in_force(scheduler, "f"))
    assert levels == [Level.P1, Level.P2, Level.P3, Level.P4, Level.P5, Level.P6]


def test_pias_gives_its_reason_in_bytes() -> None:
    scheduler = Scheduler(make_policy("pias"), ports={LINK: GBPS})
    assert scheduler.submit(0, flow("f", 10 * MB))[0].reason == "sent 0 MB, < 0.2 MB"
    assert scheduler.progress(0, "f", 6 * MB)[0].reason == "sent 4 MB, >= 3.2 MB"


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("pias(levels=7)", "levels must be 2 to 6, not 7"),
        ("pias(first_bytes=0)", "first_bytes must be at least 1, not 0"),
        ("pias(factor=1)", "factor must be above 1 and finite, not 1.0"),
        ("karuna(levels=1)", "levels must be 2 to 6, not 1"),
        ("karuna(recheck_ns=0)", "recheck_ns must be 1000 to 1e15, not 0"),
    ],
)
def test_a_wrong_option_is_refused_in_words(spec: str, complaint: str) -> None:
    with pytest.raises(PolicyError) as refused:
        make_policy(spec)
    assert complaint in str(refused.value)


# --- karuna in an exact order -------------------------------------------------------------------


def test_karuna_paces_a_deadline_flow_and_leaves_the_rest_to_the_others() -> None:
    """5 MB due at 8 ms: 40 Mbit / 8 ms = 5 Gb/s of 10, at every look. The other gets 5 Gb/s, 40 Mbit
    until 8 ms; its other 40 Mbit take 4 ms of the whole link."""
    outcome = play(
        "karuna",
        10 * GBPS,
        [Arrival(0, flow("timed", 5 * MB, 8 * MS)), Arrival(0, flow("other", 10 * MB))],
        exact=True,
    )
    assert outcome.finish_ns == {"timed": 8 * MS, "other": 12 * MS}
    assert [(said.level, said.rate_bps) for said in said_of(outcome, "timed")] == [(Level.P1, 5 * GBPS)]


def test_karuna_serves_the_others_by_size() -> None:
    """1 MB/s, no deadlines: 1 MB, 2 MB, 3 MB end at 1, 3 and 6 s."""
    sizes = {"A": 3, "B": 1, "C": 2}
    arrivals = [Arrival(0, flow(name, size * MB)) for name, size in sizes.items()]
    outcome = play("karuna", MB_PER_S, arrivals, exact=True)
    assert {name: outcome.finish_s(name) for name in sizes} == {"A": 6, "B": 1, "C": 3}


def test_karuna_keeps_the_pace_of_a_deadline_flow_when_nobody_else_sends() -> None:
    """It gets as little bandwidth as possible, though the link is idle: 1 MB due at 4 s ends at 4 s."""
    outcome = play("karuna", MB_PER_S, [Arrival(0, flow("timed", 1 * MB, 4 * S))], exact=True)
    assert outcome.finish_s("timed") == 4


def test_karuna_raises_the_rate_of_a_flow_that_falls_behind_until_it_is_late() -> None:
    """10 Gb/s, looks each ms. 40 Mbit due at 8 ms ask for 5 Gb/s, 40 Mbit due at 5 ms ask for 8: both get a
    fair share, 5. The second has 35 Mbit left for 4 ms, then 30 for 3. 25 for 2 ms are more than the link
    carries: it is late and gets what the first leaves, 5 Gb/s again. Both end at 8 ms."""
    outcome = play(
        "karuna(recheck_ns=1000000)",
        10 * GBPS,
        [Arrival(0, flow("first", 5 * MB, 8 * MS)), Arrival(0, flow("second", 5 * MB, 5 * MS))],
        exact=True,
    )
    assert [said.rate_bps for said in said_of(outcome, "first")] == [5 * GBPS]
    assert [(said.time_ns // MS, said.rate_bps) for said in said_of(outcome, "second")] == [
        (0, 8 * GBPS),
        (1, 8_750_000_000),
        (2, 10 * GBPS),
        (3, None),
    ]
    assert outcome.finish_ns == {"first": 8 * MS, "second": 8 * MS}


def test_karuna_gives_a_late_flow_what_the_paced_ones_leave() -> None:
    """1 MB/s. 1 MB cannot be sent by 0.5 s. It gets what 1 MB due at 2 s leaves, half of the link until
    2 s, and goes before the flow without a deadline: [2, 3]."""
    outcome = play(
        "karuna",
        MB_PER_S,
        [
            Arrival(0, flow("late", 1 * MB, S // 2)),
            Arrival(0, flow("paced", 1 * MB, 2 * S)),
            Arrival(0, flow("other", 1 * MB)),
        ],
        exact=True,
    )
    assert {name: outcome.finish_s(name) for name in ("late", "paced", "other")} == {
        "late": 2,
        "paced": 2,
        "other": 3,
    }


@pytest.mark.parametrize(
    ("spec", "rate_bps"), [("karuna", 2 * MB_PER_S), ("karuna(downstream=off)", MB_PER_S)]
)
def test_karuna_counts_what_must_follow_the_flow(spec: str, rate_bps: int) -> None:
    """4 MB, deadline 4 s, then 2 s of other work: due at 2 s, so 2 MB/s; or due at 4 s, so 1 MB/s."""
    scheduler = Scheduler(make_policy(spec), ports={LINK: GBPS}, exact=True)
    assert scheduler.submit(0, flow("f", 4 * MB, 4 * S, downstream_ns=2 * S))[0].rate_bps == rate_bps


def test_karuna_does_not_pace_a_flow_with_nothing_left_to_send() -> None:
    """The last byte is reported, but not the completion. At a rate of 0 the flow would never end."""
    scheduler = Scheduler(make_policy("karuna"), ports={LINK: GBPS}, exact=True)
    scheduler.submit(0, flow("f", 1 * MB, S))
    assert scheduler.progress(0, "f", 0)[0].rate_bps is None


# --- karuna on levels ---------------------------------------------------------------------------


def test_karuna_on_levels_keeps_a_flow_within_one_recheck_of_its_line() -> None:
    """10 Gb/s, looks each ms. 5 MB due at 8 ms: the line is 0.625 MB per ms, the link carries 1.25. At
    0 nothing is due: PK. At 1 ms 0.625 MB are missing: P1, and at 2 ms 1.25 MB are sent, on the line:
    PK. So every second ms; at 6 ms the last 1.25 MB can still wait for the next look, and end at 8 ms.
    The other flow, 20 MB, has the even ms until then, 5 MB, and ends with the last of 25 MB at 20 ms."""
    outcome = play(
        "karuna(recheck_ns=1000000)",
        10 * GBPS,
        [Arrival(0, flow("timed", 5 * MB, 8 * MS)), Arrival(0, flow("other", 20 * MB))],
    )
    assert [(said.time_ns // MS, said.level) for said in said_of(outcome, "timed")] == [
        (ms, Level.P1 if ms % 2 else Level.P6) for ms in range(8)
    ]
    assert outcome.levels("other") == [Level.P3]
    assert outcome.finish_ns == {"timed": 8 * MS, "other": 20 * MS}


def test_karuna_on_levels_does_not_wait_where_the_next_look_would_be_too_late() -> None:
    """1.25 MB need 1 ms of 10 Gb/s. A look 1 ms later is in time if they are due in 2 ms, not in 1.9."""
    scheduler = Scheduler(make_policy("karuna(recheck_ns=1000000)"), ports={LINK: 10 * GBPS})
    assert scheduler.submit(0, flow("can wait", 1_250_000, 2_000_000))[0].level is Level.P6
    assert scheduler.submit(0, flow("cannot", 1_250_000, 1_900_000))[0].level is Level.P1


def test_karuna_on_levels_puts_a_late_flow_on_the_top_level() -> None:
    """Due at 1 s, and nothing is sent by 2 s. The tick at 2 s is the first event after the submission."""
    scheduler = Scheduler(make_policy("karuna"), ports={LINK: GBPS})
    scheduler.submit(0, flow("f", 1 * MB, S))
    assert in_force(scheduler, "f") is Level.P6
    (said,) = scheduler.tick(2 * S)
    assert (said.level, said.reason) == (Level.P1, "late: 1 MB due in -1000.0 ms, 8.0 ms needed")


def test_karuna_on_levels_steps_down_when_progress_shows_the_line_is_kept() -> None:
    """8 MB due at 8 s. At 2 s 2 MB are due: 1 MB sent is behind, 2 MB are not."""
    scheduler = Scheduler(make_policy("karuna"), ports={LINK: GBPS})
    scheduler.submit(0, flow("f", 8 * MB, 8 * S))
    (up,) = scheduler.progress(2 * S, "f", 7 * MB)
    (down,) = scheduler.progress(2 * S, "f", 6 * MB)
    assert (up.level, up.reason) == (Level.P1, "behind: sent 1 MB, 2 MB due by now")
    assert (down.level, down.reason) == (Level.P6, "not behind: sent 2 MB, 2 MB due by now")


@pytest.mark.parametrize(
    ("levels", "smallest", "largest"),
    [(6, Level.P2, Level.P5), (4, Level.P2, Level.P3), (3, Level.P2, Level.P2), (2, Level.P2, Level.P2)],
)
def test_karuna_on_levels_keeps_the_others_between_urgent_and_waiting(
    levels: int, smallest: Level, largest: Level
) -> None:
    """Ten sizes were observed: a smaller one goes to the first level in between, a larger one to the last.
    With two levels there is none in between, and all go to the lower one."""
    scheduler = Scheduler(make_policy(f"karuna(levels={levels})"), ports={LINK: GBPS})
    for size in range(1, 11):
        scheduler.submit(0, flow(f"{size} MB", size * MB))
        scheduler.completion(0, f"{size} MB")
    assert scheduler.submit(0, flow("small", MB // 2))[0].level is smallest
    assert scheduler.submit(0, flow("large", 11 * MB))[0].level is largest


@pytest.mark.parametrize("exact", [False, True])
def test_karuna_wants_to_look_again_only_while_a_deadline_is_open(exact: bool) -> None:
    scheduler = Scheduler(make_policy("karuna"), ports={LINK: GBPS}, exact=exact)
    scheduler.submit(0, flow("other", 1 * MB))
    assert scheduler.next_tick_ns() is None
    scheduler.submit(0, flow("timed", 1 * MB, S))
    assert scheduler.next_tick_ns() == 5 * MS
    scheduler.completion(0, "timed")
    assert scheduler.next_tick_ns() is None
