"""Reuse in a trace, against numbers worked out by hand and another program."""

import numpy as np
import pytest
from trace_columns import columns

from experiments.traces import _core
from experiments.traces.reuse import DistanceQuantiles, HitCurve, Prefix, reuse_of
from experiments.workloads.synthetic import GENERATORS
from testbed.serving.cache.prefix_index import PrefixIndex

FOUR = columns((0, 1), (2,), (0, 1, 3), (2, 4), tokens=(25, 15, 35, 20))
"""Blocks after each prompt, most recent first: 0 1; 2 0 1; 0 1 3 2. The third prompt finds 0 behind one
block and 1 behind two, the fourth finds 2 behind three: distances 1, 2 and 3. Every last use was two
requests ago."""


def test_reuse_is_told_by_hand() -> None:
    reuse, curve = reuse_of(FOUR)

    assert reuse.token_share == pytest.approx(30 / 95)
    assert reuse.request_share == 0.5
    assert reuse.distance_requests == DistanceQuantiles(p50=2, p90=2)
    assert reuse.distance_blocks == DistanceQuantiles(p50=2, p90=pytest.approx(2.8))  # 1, 2, 3: rank 1.8
    assert reuse.distinct_blocks == 5
    assert curve.cache_tokens == [10, 20, 30, 40]
    assert curve.hit_rate == pytest.approx([0, 10 / 95, 20 / 95, 30 / 95])


def test_a_shared_prefix_is_told_once_at_its_full_length() -> None:
    """0 1 and 2 are shared by two each. 0 alone is no other prefix: every prompt with 0 goes on with 1."""
    reuse, _ = reuse_of(FOUR)

    assert (reuse.prefixes, reuse.zipf) == (2, pytest.approx(0, abs=1e-9))
    assert reuse.most_shared == (Prefix(tokens=20, requests=2), Prefix(tokens=10, requests=2))


def test_a_prefix_that_fewer_go_on_from_is_one_of_its_own() -> None:
    """All four share 0 and two of them 0 1. Only the longer prefix is not continued by a shared one."""
    reuse, _ = reuse_of(columns((0, 1), (0, 1), (0, 2), (0, 3)))

    assert reuse.prefixes == 1
    assert reuse.most_shared == (Prefix(tokens=10, requests=4), Prefix(tokens=20, requests=2))


def test_a_prompt_uses_the_prefix_that_it_is_on_the_way_to() -> None:
    """0 leads to 1 and 2, so a prompt with 0 alone uses neither; 3 leads only to 4, so one with 3 uses 3 4.

    0 1 has 2 users, 0 2 has 2, 3 4 has 2 and two more: 4, 2 and 2.
    """
    reuse, _ = reuse_of(columns((0, 1), (0, 1), (0, 2), (0, 2), (0,), (3, 4), (3, 4), (3,), (3,)))

    assert reuse.prefixes == 3
    ranks, logs = np.log([1, 2, 3]), np.log([4, 2, 2])
    slope = np.sum((ranks - ranks.mean()) * (logs - logs.mean())) / np.sum((ranks - ranks.mean()) ** 2)
    assert reuse.zipf == pytest.approx(-slope)


def test_popularity_is_the_slope_over_ranks() -> None:
    """Four texts used 24, 12, 8 and 6 times: 24 / rank."""
    prompts = [(text,) for text, uses in enumerate((24, 12, 8, 6)) for _ in range(uses)]

    assert reuse_of(columns(*prompts))[0].zipf == pytest.approx(1.0)


def test_nothing_is_reused_where_prompts_have_no_blocks() -> None:
    reuse, curve = reuse_of(columns((), (), ()))

    assert (reuse.token_share, reuse.request_share, reuse.prefixes) == (0, 0, 0)
    assert reuse.distance_blocks == DistanceQuantiles(p50=None, p90=None)
    assert curve == HitCurve(cache_tokens=[], hit_rate=[])


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_cache_of_each_size_hits_what_the_prefix_index_hits(kind: str, seed: int) -> None:
    made = GENERATORS[kind](300, seed, "default").requests
    found = columns(
        *[request.blocks for request in made],
        tokens=tuple(request.prompt_tokens for request in made),
        block_tokens=made[0].block_tokens,
    )
    _, curve = reuse_of(found)
    total = sum(request.prompt_tokens for request in made)

    for point in range(0, len(curve.cache_tokens), 40):
        index = PrefixIndex(1, curve.cache_tokens[point] // found.block_tokens)
        hits = 0
        for request in made:
            hits += len(index.lookup(request.blocks))
            index.insert(request.blocks, 0)
        assert curve.hit_rate[point] == pytest.approx(hits * found.block_tokens / total)


def test_ids_are_numbered_in_the_order_in_which_they_first_occur() -> None:
    ids = np.array([2**62, 7, 2**62, -5, 7, 0])
    _core.number(ids)
    assert ids.tolist() == [0, 1, 0, 2, 1, 3]


def test_many_ids_are_numbered_as_a_dictionary_does() -> None:
    """More than the table of the numbers begins with, ids in a row and ids far apart."""
    draw = np.random.default_rng(1)
    ids = np.concatenate((np.arange(3000), draw.integers(-(2**63), 2**63 - 1, 3000), np.arange(3000) << 40))
    draw.shuffle(ids)
    known: dict[int, int] = {}
    expected = [known.setdefault(one, len(known)) for one in ids.tolist()]
    _core.number(ids)
    assert ids.tolist() == expected


def test_prefixes_are_the_same_however_many_requests_are_worked_on_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = reuse_of(FOUR)
    monkeypatch.setattr("experiments.traces.reuse._REQUESTS", 1)
    assert reuse_of(FOUR) == together
