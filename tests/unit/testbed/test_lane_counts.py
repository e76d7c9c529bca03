"""The number of lanes of a pair of ranks, on every fabric."""

import itertools

import msgspec
from serving_world import DENSE, job, placed

from controller.flow import Stage, Transfer
from testbed.job import Job, MicroFlow
from testbed.lane_counts import LaneCounts


def serving(*, background: int = 0, **workers: int) -> Job:
    """A job whose ranks 0 to 3 prefill and 4 and 5 decode."""
    made = job(*placed(decode=2, servers=6))
    return msgspec.structs.replace(
        made,
        workers=msgspec.structs.replace(made.workers, **workers),
        serving=msgspec.structs.replace(made.serving, decode_background=background),
    )


def test_s1_and_s3_have_the_lanes_the_scenario_says() -> None:
    counts = LaneCounts(serving(lanes_s1=2, lanes_s3=3))
    assert counts.of(Stage.KV_REUSE, 0, 1) == 2
    assert counts.of(Stage.P2D, 0, 4) == 3
    expected = {(Stage.KV_REUSE, a, b) for a, b in itertools.permutations(range(4), 2)}
    expected |= {(Stage.P2D, a, d) for a in range(4) for d in (4, 5)}
    assert set(counts.pairs()) == expected


def test_decode_workers_have_one_lane_each_way_where_they_have_traffic() -> None:
    """One lane is enough: a step has one message per pair, and begins once the last step has arrived."""
    counts = LaneCounts(serving(background=8, lanes_s3=3))
    assert counts.of(Stage.COLLECTIVE, 4, 5) == 1
    between = {pair for pair in counts.pairs() if pair[0] is Stage.COLLECTIVE}
    assert between == {(Stage.COLLECTIVE, 4, 5), (Stage.COLLECTIVE, 5, 4)}


def test_micro_flows_have_a_lane_each() -> None:
    pairs = [(0, 1), (0, 1), (1, 0)]
    flows = tuple(
        MicroFlow(transfer=Transfer(id=f"f{i}", stage=Stage.P2D, src=a, dst=b, size_bytes=1), start_ns=0)
        for i, (a, b) in enumerate(pairs)
    )
    counts = LaneCounts(msgspec.structs.replace(serving(), flows=flows))
    assert {pair: counts.of(*pair) for pair in counts.pairs()} == {
        (Stage.P2D, 0, 1): 2,
        (Stage.P2D, 1, 0): 1,
    }


def test_s3_has_lanes_to_the_decode_ranks_with_the_same_heads() -> None:
    """Replicas (0, 1) and (2, 3) of tp 2, workers (4, 5, 6, 7) and (8, 9, 10, 11): half of a worker each."""
    model = msgspec.structs.replace(DENSE, q_heads=4, kv_heads=4)
    made = job(
        *placed(units=1, per_unit=4, tp=2, decode=8, decode_tp=4, servers=12, model=model), model=model
    )
    s3 = {(a, d) for stage, a, d in LaneCounts(made).pairs() if stage is Stage.P2D}
    first, second = (4, 5, 8, 9), (6, 7, 10, 11)
    assert s3 == {(a, d) for a in (0, 2) for d in first} | {(a, d) for a in (1, 3) for d in second}
