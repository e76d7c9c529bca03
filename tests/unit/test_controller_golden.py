"""Policies on an exact network, against finish times worked out by hand."""

from fractions import Fraction

import pytest
from fluid import Arrival, BatchStart, Happening, LayerStart, Outcome, max_min, run
from scheduling_world import due

from controller.flow import Batch, Flow, Level, PortId, Stage
from controller.policies import make_policy
from controller.scheduler import Scheduler

LINK = "h1->s1"
GBPS = 1_000_000_000
MS = 1_000_000
S = 1_000_000_000
MB = 1_000_000


def play(spec: str, bps: dict[PortId, int], happenings: list[Happening]) -> Outcome:
    return run(Scheduler(make_policy(spec), ports=bps), bps, happenings)


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


def test_strict_priority_serves_the_high_class_first() -> None:
    """3,000 packets of 8,192 B at 1 Gb/s: 0.196608 s; the low class as much again."""
    size = 3000 * 8192
    flows: list[Happening] = [
        BatchStart(0, Batch(id="b", layers=1, requests=due(S))),
        Arrival(0, on_link("low", size)),
        Arrival(0, on_link("high", size, Stage.COLLECTIVE, batch="b")),
    ]
    outcome = play("stage", {LINK: GBPS}, flows)
    assert outcome.finish_ns == {"high": 196_608_000, "low": 393_216_000}


def test_eight_senders_share_one_receiver_until_all_end_together() -> None:
    """8 x 20 MB = 1,280 Mbit into one 100 Gb/s port: 12.8 ms for every one of them."""
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
    """S2 keeps the port busy for 20 ms at P2. S3: 12.5 MB due at 20 ms, no batch, looked at every
    5 ms. MLU 100 Mbit / 2000 = 0.05 (P3), 0.067, 0.1, and at 15 ms 100 / 500 = 0.2: P2. There it
    gets half the port, 6.25 MB/ms, and ends at 17 ms. S2 ends with the port's last byte at 21 ms."""
    outcome = play(
        "mfs(rho=off)",
        {LINK: 100 * GBPS},
        [
            BatchStart(0, Batch(id="b", layers=1, requests=due(S))),
            Arrival(0, on_link("s2", 250 * MB, Stage.COLLECTIVE, batch="b")),
            Arrival(0, on_link("s3", 12_500_000, deadline_ns=20 * MS)),
        ],
    )
    assert outcome.levels("s3") == [Level.P3, Level.P2]
    assert outcome.finish_ns == {"s3": 17 * MS, "s2": 21 * MS}


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
    assert outcome.levels("for 3") == [Level.P5, Level.P4]  # RLI 3, then 2
