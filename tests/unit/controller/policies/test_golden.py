"""Policies on an exact network, against finish times worked out by hand."""

from fractions import Fraction

import pytest
from fluid import Arrival, BatchStart, Happening, LayerStart, Outcome, max_min, run
from scheduling_world import due

from controller.flow import Batch, Flow, Level, PortId, Stage
from controller.policies import Policy, make_policy
from controller.policy import Verdict
from controller.scheduler import Scheduler
from controller.view import ActiveFlow, View

LINK = "h1->s1"
GBPS = 1_000_000_000
MS = 1_000_000
S = 1_000_000_000
MB = 1_000_000


def play(spec: str, bps: dict[PortId, int], happenings: list[Happening], *, exact: bool = False) -> Outcome:
    return run(Scheduler(make_policy(spec), ports=bps, exact=exact), bps, happenings)


def on_link(name: str, size: int, stage: Stage = Stage.P2D, **more: object) -> Flow:
    return Flow(id=name, stage=stage, size_bytes=size, load={LINK: size}, **more)  # type: ignore[arg-type]


def test_max_min_gives_what_a_full_port_leaves_to_the_others() -> None:
    """Ports x = 2, y = 12. Flows on x, x and y, y: x is full at 1 each, the third takes 12 - 1 = 11."""
    one = Fraction(1)
    spare = {"x": Fraction(2), "y": Fraction(12)}
    assert max_min([{"x": one}, {"x": one, "y": one}, {"y": one}], spare) == [1, 1, 11]
    assert spare == {"x": 0, "y": 0}


def test_fair_row_of_table_1() -> None:
    """Unit link (1 MB/s), sizes A 2, B 4, C 3, all at 0. Thirds until A ends at 6, halves until
    C's last unit is through at 8, then B alone until 9."""
    sizes = {"A": 2, "B": 4, "C": 3}
    flows: list[Happening] = [Arrival(0, on_link(name, size * MB)) for name, size in sizes.items()]
    outcome = play("fair", {LINK: 8 * MB}, flows)
    assert {name: outcome.finish_s(name) for name in sizes} == {"A": 6, "B": 9, "C": 8}


def table_1() -> list[Happening]:
    """Its three flows, ready at 0, in seconds and MB for the unit link of 1 MB/s. A (size 2, then 9 of
    other work, due at 18) and B (4, 6, 12) have the deadline of a batch's only request; C (3, nothing
    after, 7) has one of its own. Latest finishes are 9, 6, 7 and laxities 7, 2, 4."""
    return [
        BatchStart(0, Batch(id="a", layers=1, requests=due(18 * S))),
        BatchStart(0, Batch(id="b", layers=1, requests=due(12 * S))),
        Arrival(0, on_link("A", 2 * MB, Stage.COLLECTIVE, batch="a", downstream_ns=9 * S)),
        Arrival(0, on_link("B", 4 * MB, Stage.KV_REUSE, batch="b", request="r0", downstream_ns=6 * S)),
        Arrival(0, on_link("C", 3 * MB, deadline_ns=7 * S)),
    ]


def finishes_s(outcome: Outcome) -> dict[str, Fraction]:
    return {name: outcome.finish_s(name) for name in outcome.finish_ns}


@pytest.mark.parametrize(
    ("spec", "a", "b", "c"),
    [("llf", 9, 4, 7), ("sjf", 2, 9, 5), ("edf", 7, 9, 3), ("edf-all", 9, 7, 3), ("reverse", 5, 9, 3)],
)
def test_rows_of_table_1_in_exact_order(spec: str, a: int, b: int, c: int) -> None:
    """llf: B [0,4], C [4,7], A [7,9], all in time. sjf: A, C, B. edf: C [0,3], then A and B share: A
    is through 4 later, B has the rest. edf-all (dues 18, 12, 7): C, B, A. reverse: compute waits for A
    and B already, latest starts are -2, -4 and 4: C, A, B."""
    assert finishes_s(play(spec, {LINK: 8 * MB}, table_1(), exact=True)) == {"A": a, "B": b, "C": c}


@pytest.mark.parametrize(("spec", "a", "b", "c"), [("sjf", 2, 9, 5), ("edf", 7, 9, 3), ("reverse", 5, 9, 3)])
def test_rows_of_table_1_that_six_levels_keep(spec: str, a: int, b: int, c: int) -> None:
    """sjf: A is the first seen, P3. B is larger than all seen, P6. C than half of them, P4. reverse:
    A is the first seen, B has less laxity, C more than all seen, P1.
    edf: A and B have P6 to themselves, C is above them."""
    assert finishes_s(play(spec, {LINK: 8 * MB}, table_1())) == {"A": a, "B": b, "C": c}


def every_second(spec: str, happenings: list[Happening]) -> dict[str, Fraction]:
    return finishes_s(play(f"{spec}(recheck_ns={S})", {LINK: 8 * MB}, happenings))


def test_edf_all_in_six_levels_mends_the_first_order_at_the_first_look() -> None:
    """A is the first seen: P3. B and C are each due before all seen: P1, and share. At 1 s C has 2.5
    left and B 3.5; of the slacks seen (18, 12, 7) now none is below C's 6, one below B's 11: C is
    alone on P1 and done at 3.5. B follows till 7 (P1 while A, at 18 - 7, is below it), then A."""
    assert every_second("edf-all", table_1()) == {
        "A": 9,
        "B": 7,
        "C": Fraction(7, 2),
    }


def test_llf_in_six_levels_is_late_where_all_three_become_urgent() -> None:
    """Laxities seen are 7, 2, 4. B is alone on P1 until C's laxity is below 2 too, at the look at 3 s:
    from there B (1 left) and C (3) share, and B ends at 5. C is alone till A's laxity is below 2, at
    6, with 1 left. They share: C ends at 8, A has the rest and ends at 9. Exact order keeps C (due 7)
    in time: quantiles of past laxities do not tell two urgent flows apart."""
    assert every_second("llf", table_1()) == {"A": 9, "B": 5, "C": 8}


def one_second_apart() -> list[Happening]:
    sizes = {"A": 2, "B": 4, "C": 3}
    return [Arrival(i * S, on_link(name, sizes[name] * MB)) for i, name in enumerate(sizes)]


def test_fifo_in_exact_order_serves_by_submission() -> None:
    """A [0,2], B [2,6], C [6,9]."""
    outcome = play("fifo", {LINK: 8 * MB}, one_second_apart(), exact=True)
    assert finishes_s(outcome) == {"A": 2, "B": 6, "C": 9}


def test_fifo_shares_between_flows_of_one_moment() -> None:
    """None came first, so the times are those of `fair`."""
    outcome = play("fifo", {LINK: 8 * MB}, table_1(), exact=True)
    assert finishes_s(outcome) == {"A": 6, "B": 9, "C": 8}


def test_fifo_in_six_levels_knows_ages_only_once_a_flow_has_ended() -> None:
    """All on P3: A alone, then halves, from 2 s thirds of A 0.5, B 3.5, C 3. A is done at 3.5, aged 3.5:
    younger is P6, older is P1. At 5 B (2.25 left) is aged 4 and C (1.75) is 3: B alone to 6, where C
    is 4 as well. B's 1.25 take 2.5 s beside C, and C has the rest."""
    assert every_second("fifo", one_second_apart()) == {
        "A": Fraction(7, 2),
        "B": Fraction(17, 2),
        "C": 9,
    }


class Paced(Policy):
    name = "paced"
    summary = "2 MB/s for the first flow, which goes before all others"

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        if len(view.flows) == 1:
            return Verdict(Level.P3, "paced", order=1, rate_bps=16 * MB)
        return Verdict(Level.P3, "the rest", order=2)


def test_a_paced_flow_leaves_the_rest_of_the_link_to_those_behind_it() -> None:
    """10 MB/s: 4 MB at 2 MB/s end at 2 s. Two flows behind it share 8 MB/s: 8 MB each, also until 2 s."""
    bps = {LINK: 80 * MB}
    flows: list[Happening] = [
        Arrival(0, on_link("paced", 4 * MB)),
        Arrival(0, on_link("one", 8 * MB)),
        Arrival(0, on_link("other", 8 * MB)),
    ]
    outcome = run(Scheduler(Paced(None), ports=bps, exact=True), bps, flows)
    assert finishes_s(outcome) == {"paced": 2, "one": 2, "other": 2}


def test_strict_priority_serves_the_high_class_first() -> None:
    """3,000 packets of 8,192 B at 1 Gb/s take 0.196608 s; the low class takes as long again."""
    size = 3000 * 8192
    flows: list[Happening] = [
        BatchStart(0, Batch(id="b", layers=1, requests=due(S))),
        Arrival(0, on_link("low", size)),
        Arrival(0, on_link("high", size, Stage.COLLECTIVE, batch="b")),
    ]
    outcome = play("stage", {LINK: GBPS}, flows)
    assert outcome.finish_ns == {"high": 196_608_000, "low": 393_216_000}


@pytest.mark.parametrize(
    ("spec", "finish_s"),
    [
        ("static(s1=1, s2=2, s3=3)", {"A": 6, "B": 4, "C": 9}),
        ("static(s1=2, s2=3, s3=1)", {"A": 9, "B": 7, "C": 3}),
        ("static(s1=4, s2=4, s3=2)", {"A": 7, "B": 9, "C": 3}),
        ("static(s1=5, s2=5, s3=5)", {"A": 6, "B": 9, "C": 8}),
        ("stage", {"A": 2, "B": 6, "C": 9}),
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_static_serves_the_stages_of_table_1_in_the_order_of_its_options(
    spec: str, finish_s: dict[str, int], exact: bool
) -> None:
    """A (S2, 2), B (S1, 4) and C (S3, 3), one after the other by level. Third row: C until 3, then A and B
    in halves, so A ends at 3 + 4 = 7 and B has 2 left. With equal numbers it is `fair`."""
    assert finishes_s(play(spec, {LINK: 8 * MB}, table_1(), exact=exact)) == finish_s


def test_hermod_serves_table_1_in_the_order_of_its_batches() -> None:
    """A's batch is formed before B's, and C has none: 2, then 4, then 3."""
    assert finishes_s(play("hermod", {LINK: 8 * MB}, table_1(), exact=True)) == {"A": 2, "B": 6, "C": 9}


def test_eight_senders_share_one_receiver_until_all_end_together() -> None:
    """8 x 20 MB = 1,280 Mbit into one 100 Gb/s port: every sender takes 12.8 ms."""
    senders = [f"h{i}" for i in range(1, 9)]
    bps = {f"{sender}->s1": 100 * GBPS for sender in senders} | {"s1->h9": 100 * GBPS}
    flows: list[Happening] = [
        Arrival(
            0,
            Flow(
                id=sender,
                stage=Stage.P2D,
                size_bytes=20 * MB,
                load={f"{sender}->s1": 20 * MB, "s1->h9": 20 * MB},
            ),
        )
        for sender in senders
    ]
    assert set(play("fair", bps, flows).finish_ns.values()) == {Fraction(128, 10) * MS}


def collective_and_deferrable(due_ms: int) -> list[Happening]:
    return [
        BatchStart(0, Batch(id="b", layers=2, requests=due(due_ms * MS))),
        Arrival(0, on_link("s3", 12_500_000, batch="b", layer=0, deadline_ns=due_ms * MS)),
        Arrival(0, on_link("s2", 12_500_000, Stage.COLLECTIVE, batch="b", layer=1)),
    ]


@pytest.mark.parametrize(("spec", "s2_ms"), [("fair", 2), ("stage", 1), ("mfs", 1)])
def test_a_deferred_s3_flow_lets_the_collective_through(spec: str, s2_ms: int) -> None:
    """Each needs 1 ms of 100 Gb/s alone; S3 has 100 ms (MLU 0.01, over 1 - rho; rho is 0.002) and
    ends after 2 ms anyway."""
    outcome = play(spec, {LINK: 100 * GBPS}, collective_and_deferrable(100))
    assert outcome.finish_ns == {"s2": s2_ms * MS, "s3": 2 * MS}


def test_mfs_lets_an_urgent_s3_flow_pass_the_collective() -> None:
    """1 ms of the port, due in 2 ms: MLU 0.5, so P1, and S2 waits for it."""
    outcome = play("mfs(rho=off)", {LINK: 100 * GBPS}, collective_and_deferrable(2))
    assert outcome.finish_ns == {"s3": 1 * MS, "s2": 2 * MS}


def test_mfs_promotes_a_waiting_s3_flow_in_time() -> None:
    """S2 keeps the port busy for 20 ms at P2. S3: 12.5 MB due at 16.5 ms, no batch, looked at every
    5 ms. MLU 100 Mbit / 1650 = 0.06 (P6), 0.087, at 10 ms 100 / 650 = 0.154 (P5), at 15 ms 0.67: P1.
    There it has the port, 12.5 MB/ms, and ends at 16 ms. S2 ends with the port's last byte at 21 ms."""
    outcome = play(
        "mfs(rho=off)",
        {LINK: 100 * GBPS},
        [
            BatchStart(0, Batch(id="b", layers=1, requests=due(S))),
            Arrival(0, on_link("s2", 250 * MB, Stage.COLLECTIVE, batch="b")),
            Arrival(0, on_link("s3", 12_500_000, deadline_ns=16_500_000)),
        ],
    )
    assert outcome.levels("s3") == [Level.P6, Level.P5, Level.P1]
    assert outcome.finish_ns == {"s3": 16 * MS, "s2": 21 * MS}


def test_kv_reuse_for_the_next_layer_goes_before_that_for_a_later_one() -> None:
    """Two fetches of 1 ms each, for layers 1 and 3: RLI 1 before 3. Layer 1 begins at 1 ms."""
    outcome = play(
        "mfs",
        {LINK: 100 * GBPS},
        [
            BatchStart(0, Batch(id="b", layers=4, requests=due(S))),
            Arrival(0, on_link("for 3", 12_500_000, Stage.KV_REUSE, batch="b", layer=3)),
            Arrival(0, on_link("for 1", 12_500_000, Stage.KV_REUSE, batch="b", layer=1)),
            LayerStart(1 * MS, "b", 1),
        ],
    )
    assert outcome.finish_ns == {"for 1": 1 * MS, "for 3": 2 * MS}
    assert outcome.levels("for 3") == [Level.P4]  # RLI 3, then 2, and no level lower for S1
