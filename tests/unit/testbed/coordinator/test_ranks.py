"""The lanes and probes that a job needs, and the order in which they are opened."""

import itertools
from collections import Counter

import msgspec
import pytest
from serving_world import job, placed

from controller.flow import Stage, Transfer
from testbed.coordinator.ranks import lanes_of, probes_of
from testbed.job import Job, MicroFlow


def serving_job(*, lanes_s1: int = 1, lanes_s3: int = 1, **shape: int) -> Job:
    """By default two units of two prefill ranks, and one decode worker."""
    made = job(*placed(**shape))  # type: ignore[arg-type]
    workers = msgspec.structs.replace(made.workers, lanes_s1=lanes_s1, lanes_s3=lanes_s3)
    return msgspec.structs.replace(made, workers=workers)


def micro_job(*pairs: tuple[int, int], stage: Stage = Stage.P2D) -> Job:
    flows = tuple(
        MicroFlow(transfer=Transfer(id=f"f{i}", stage=stage, src=src, dst=dst, size_bytes=1), start_ns=0)
        for i, (src, dst) in enumerate(pairs)
    )
    return msgspec.structs.replace(serving_job(), flows=flows)


def per_pair(made: Job) -> Counter[tuple[str, int, int]]:
    return Counter((lane.stage.value, lane.src, lane.dst) for lane in lanes_of(made))


def test_prefill_ranks_fetch_from_each_other_and_send_to_the_decoders() -> None:
    """Ranks 0 to 3 prefill, 4 decodes: 12 ordered pairs for S1, 4 for S3."""
    counts = per_pair(serving_job(lanes_s1=2, lanes_s3=3))
    fetch = {("S1", a, b): 2 for a, b in itertools.permutations(range(4), 2)}
    send = {("S3", a, 4): 3 for a in range(4)}
    assert counts == fetch | send


def test_absent_ranks_have_no_lanes_and_no_probes() -> None:
    """Without ranks 2 and 3: S1 between 0 and 1, S3 from these to 4, and a ring over h1, h2 and h5."""
    lanes = {(lane.stage.value, lane.src, lane.dst) for lane in lanes_of(serving_job(), {2, 3})}
    assert lanes == {("S1", 0, 1), ("S1", 1, 0), ("S3", 0, 4), ("S3", 1, 4)}
    assert [(probe.src, probe.dst) for probe in probes_of(serving_job(), {2, 3})] == [(0, 1), (1, 4), (4, 0)]


def test_lanes_have_names_of_their_own() -> None:
    lanes = lanes_of(serving_job(lanes_s1=2, lanes_s3=2))
    assert len({lane.id for lane in lanes}) == len(lanes)
    assert {lane.id for lane in lanes if (lane.src, lane.dst) == (3, 4)} == {"S3.3-4.0", "S3.3-4.1"}


def test_micro_flows_get_a_lane_each_so_that_none_waits() -> None:
    counts = per_pair(micro_job((0, 1), (0, 1), (0, 1), (1, 0)))
    assert counts == {("S3", 0, 1): 3, ("S3", 1, 0): 1}


@pytest.mark.parametrize("decode", [1, 2, 3, 4])
def test_lanes_are_opened_in_rounds_in_which_no_rank_has_two_partners(decode: int) -> None:
    """Opening a lane blocks until the peer opens it too. In such rounds all pairs connect at once.

    The pairs of n ranks make n - 1 rounds (n if n is odd), as in a round-robin tournament.
    """
    lanes = lanes_of(serving_job(units=2, per_unit=4, servers=8 + decode, decode=decode, ep=1))
    pairs = [frozenset((lane.src, lane.dst)) for lane in lanes]
    rounds: list[set[frozenset[int]]] = [set()]
    for pair in pairs:
        if pair not in rounds[-1] and any(pair & other for other in rounds[-1]):
            rounds.append(set())
        rounds[-1].add(pair)
    ranks = 8 + decode
    assert len(rounds) <= ranks - 1 + ranks % 2
    assert sum(len(r) for r in rounds) == len(set(pairs))  # a pair opens all its lanes in one round


def test_a_lone_prefill_rank_fetches_from_nobody() -> None:
    alone = serving_job(units=1, per_unit=1, servers=2, tp=1, ep=1)
    assert {(lane.src, lane.dst) for lane in lanes_of(alone)} == {(0, 1)}
    assert [(p.src, p.dst) for p in probes_of(alone)] == [(0, 1), (1, 0)]


def test_probes_are_a_ring_over_the_servers_that_have_ranks() -> None:
    """Every NIC sends once and receives once."""
    probes = probes_of(serving_job())
    assert [(p.src, p.dst) for p in probes] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]
    assert len({p.id for p in probes}) == 5


def test_several_ranks_of_a_server_are_probed_once() -> None:
    shared = serving_job(servers=3, ranks_per_server=2)
    servers = [shared.placement.server_of(p.src) for p in probes_of(shared)]
    assert sorted(servers) == sorted(set(servers))


def test_one_server_alone_has_nothing_to_probe() -> None:
    made = serving_job()
    ranks = tuple(msgspec.structs.replace(r, server="h1") for r in made.placement.ranks)
    crowded = msgspec.structs.replace(made, placement=msgspec.structs.replace(made.placement, ranks=ranks))
    assert probes_of(crowded) == ()
