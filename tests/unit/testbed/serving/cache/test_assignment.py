"""Replicas for the requests of a batch, and the sources of their reused prefixes."""

import random
from collections.abc import Sequence

import pytest
from serving_world import prompt

from testbed.job import Request
from testbed.serving.cache.assignment import (
    Assigned,
    Fetch,
    Senders,
    assign,
    cacheable_blocks,
    find_reuse,
    reusable_blocks,
    told_to_send,
)
from testbed.serving.cache.prefix_index import PrefixIndex


def test_one_token_is_always_computed() -> None:
    """8 tokens fill two blocks of 4; reusing both would leave nothing to compute. 9 would not."""
    assert reusable_blocks(prompt(0, 8, (1, 2))) == (1,)
    assert reusable_blocks(prompt(0, 9, (1, 2))) == (1, 2)


def test_only_full_blocks_are_left_behind() -> None:
    """A trace may give an id to the last, partial block: 9 tokens fill two blocks of three."""
    assert cacheable_blocks(prompt(0, 9, (1, 2, 3))) == (1, 2)
    assert cacheable_blocks(prompt(0, 8, (1, 2))) == (1, 2)


def test_the_longest_prefix_is_taken_and_the_own_unit_wins_ties() -> None:
    indexes = _indexes(1)
    indexes["p0"].insert((1, 2), replica=0)
    indexes["p1"].insert((1, 2), replica=0)
    request = prompt(0, 20, (1, 2, 3))
    assert find_reuse(request, "p1", indexes).unit == "p1"
    indexes["p0"].insert((1, 2, 3), replica=0)
    found = find_reuse(request, "p1", indexes)
    assert (found.unit, len(found.holders)) == ("p0", 3)


@pytest.mark.parametrize("seed", range(40))
def test_the_prefix_to_reuse_is_that_of_the_best_of_all_units(seed: int) -> None:
    """Units hold prefixes of two prompts with a common beginning, some of them with evicted ends."""
    draw = random.Random(seed)
    prompts = [(1, 2, 3, *range(10 * i, 10 * i + 5)) for i in (1, 2)]
    indexes = {f"p{i}": PrefixIndex(2, draw.choice([None, 2, 4])) for i in range(8)}
    for index in indexes.values():
        for _ in range(draw.randrange(3)):
            index.insert(draw.choice(prompts)[: draw.randrange(1, 9)], draw.randrange(2))
    senders = Senders()
    for name in draw.sample(list(indexes), 5):
        senders.take((name, None))
    wanted = prompt(0, 40, draw.choice(prompts))
    unit = draw.choice(list(indexes))

    found = find_reuse(wanted, unit, indexes, senders)

    held = {name: len(index.lookup(wanted.blocks)) for name, index in indexes.items()}
    best = [name for name, blocks in held.items() if blocks == max(held.values())]
    assert len(found.holders) == max(held.values())
    assert found.unit == (unit if unit in best else min(best, key=lambda name: senders.last((name, None))))


def test_requests_go_largest_first_to_the_least_loaded_replica() -> None:
    """9 to replica 0, 8 to 1, 5 to 1 (8 < 9), 3 to 0 (9 < 13): 12 and 13 tokens."""
    batch = [prompt(0, 3), prompt(1, 9), prompt(2, 5), prompt(3, 8)]
    assigned = _assign(batch, _indexes(2))
    assert [(item.request.id, item.replica) for item in assigned] == [
        (0, 0),
        (1, 0),
        (2, 1),
        (3, 1),
    ]


def test_a_request_follows_its_cached_prefix_when_the_load_allows() -> None:
    """Replica 1 holds the prefix: 12 tokens, 8 cached, 4 to compute, nothing else to balance."""
    indexes = _indexes(2)
    indexes["p0"].insert((1, 2), replica=1)
    (item,) = _assign([prompt(0, 12, (1, 2))], indexes)
    assert (item.replica, item.local_tokens, item.remote_tokens, item.new_tokens) == (1, 8, 0, 4)
    assert item.fetches == ()


def test_a_request_leaves_its_prefix_when_that_would_unbalance_the_batch() -> None:
    """Both want replica 1. 16 new tokens go there; 4 more would make 20 = 1.25 x 16: just allowed.

    5 more would make 21: the request goes to replica 0 and fetches its two blocks.
    """
    indexes = _indexes(2)
    indexes["p0"].insert((1, 2), replica=1)
    large = prompt(0, 24, (1, 2))
    allowed = _assign([large, prompt(1, 12, (1, 2))], indexes)
    assert [item.replica for item in allowed] == [1, 1]
    moved = _assign([large, prompt(1, 13, (1, 2))], indexes)
    assert [item.replica for item in moved] == [1, 0]
    assert moved[1].fetches == (Fetch(unit="p0", replica=1, blocks=2, ends_prefix=True, spans=((0, 2),)),)
    assert (moved[1].local_tokens, moved[1].remote_tokens) == (0, 8)


def test_a_longer_remote_prefix_is_fetched_but_for_what_is_local() -> None:
    """p0 holds one block, p1 three on two replicas: fetch one from each, keep the local one."""
    indexes = _indexes(2)
    indexes["p0"].insert((1,), replica=0)
    indexes["p1"].insert((1, 2), replica=0)
    indexes["p1"].insert((3,), replica=1)
    (item,) = _assign([prompt(0, 13, (1, 2, 3))], indexes)
    assert item.replica == 0
    assert item.local_blocks == 1
    assert item.fetches == (
        Fetch(unit="p1", replica=0, blocks=1, spans=((1, 2),)),
        Fetch(unit="p1", replica=1, blocks=1, ends_prefix=True, spans=((2, 3),)),
    )
    assert item.new_tokens == 1


def test_blocks_that_one_replica_sends_need_not_follow_each_other() -> None:
    """Replica 0 has blocks 2 and 4 of the prompt itself, and replica 1 sends it the three others."""
    indexes = _indexes(2)
    indexes["p0"].insert((1, 2, 3, 4, 5), replica=1)
    indexes["p0"].insert((2,), replica=0)
    indexes["p0"].insert((4,), replica=0)
    request = prompt(0, 21, (1, 2, 3, 4, 5))
    there = Assigned(request=request, replica=0, local_blocks=0, fetches=())
    (item,) = assign([request], "p0", 2, indexes, fixed={0: there})
    (fetch,) = item.fetches
    assert fetch == Fetch(unit="p0", replica=1, blocks=3, ends_prefix=True, spans=((0, 1), (2, 3), (4, 5)))


def test_holders_that_tie_send_in_turn() -> None:
    """p1 and p2 hold the prefix on both replicas. Two requests in one batch, then one more: p1, p2, p1."""
    indexes = {name: PrefixIndex(2) for name in ("p0", "p1", "p2")}
    for name in ("p1", "p2"):
        for replica in (0, 1):
            indexes[name].insert((1, 2), replica)
    senders = Senders()

    def fetches(*batch: Request) -> list[Fetch]:
        assigned = assign(batch, "p0", 2, indexes, senders=senders)
        for item in assigned:
            told_to_send(item, senders)
        return [fetch for item in assigned for fetch in item.fetches]

    a, b, c = (prompt(number, 9, (1, 2)) for number in range(3))
    assert fetches(a, b) == [
        Fetch(unit="p1", replica=0, blocks=2, ends_prefix=True, spans=((0, 2),)),
        Fetch(unit="p2", replica=0, blocks=2, ends_prefix=True, spans=((0, 2),)),
    ]
    assert fetches(c) == [Fetch(unit="p1", replica=1, blocks=2, ends_prefix=True, spans=((0, 2),))]


def test_of_the_replicas_with_a_prefix_the_one_that_computed_least_is_home() -> None:
    indexes = _indexes(2)
    for replica in (0, 1):
        indexes["p0"].insert((1, 2), replica)
    (item,) = assign([prompt(0, 12, (1, 2))], "p0", 2, indexes, computed_tokens=[5, 4])
    assert item.replica == 1


def test_requests_of_one_batch_do_not_share_what_is_not_cached() -> None:
    first, second = _assign([prompt(0, 9, (1, 2)), prompt(1, 9, (1, 2))], _indexes(2))
    assert (first.new_tokens, second.new_tokens) == (9, 9)


def _indexes(replicas: int) -> dict[str, PrefixIndex]:
    return {"p0": PrefixIndex(replicas), "p1": PrefixIndex(replicas)}


def _assign(batch: Sequence[Request], indexes: dict[str, PrefixIndex]) -> list[Assigned]:
    return assign(batch, "p0", 2, indexes)
