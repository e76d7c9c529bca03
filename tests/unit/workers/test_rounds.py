"""The rounds of collectives: what members send in each round, and that all have everything at the end."""

from collections import Counter

import pytest

from workers.plan import Collective, CollectiveKind
from workers.rounds import (
    TREE_CHUNK_BYTES,
    TREE_MOST_CHUNKS,
    Direct,
    DoubleTree,
    Message,
    Ring,
    Rounds,
    split,
    tree_chunks,
    tree_parts,
)

SIZES = range(1, 18)
ALL_GATHER, RING_ATTENTION = CollectiveKind.ALL_GATHER, CollectiveKind.RING_ATTENTION
ALL_REDUCE, TREE_ALL_REDUCE = CollectiveKind.ALL_REDUCE, CollectiveKind.TREE_ALL_REDUCE


def collective(kind: CollectiveKind, members: int, size: int = 1001) -> Collective:
    """A collective with uneven sizes."""
    if kind is CollectiveKind.ALL_TO_ALL:
        sizes = tuple(tuple(size + 7 * i + j for j in range(members)) for i in range(members))
    elif kind in (ALL_GATHER, RING_ATTENTION):
        sizes = (tuple(size + 7 * i for i in range(members)),)
    else:
        sizes = ((size,),)
    return Collective(id="c", group="g", kind=kind, sizes=sizes, label="")


def held_at_the_end(rounds: Rounds, members: int, own: list[set[int]]) -> list[dict[int, Counter[int]]]:
    """For each member and part at the end: which members have contributed to it, and how often.

    `own` are the parts that each member has at the start. Also checks that every message has a sender and a
    receiver."""
    held = [{part: Counter([i]) for part in own[i]} for i in range(members)]
    for number in range(rounds.count):
        moved: list[tuple[int, Message, Counter[int]]] = []
        awaited: list[tuple[int, int, int, bool]] = []
        for i in range(members):
            for message in rounds.sends(i, number):
                moved.append((i, message, Counter(held[i][message.part])))
            awaited += [(m.peer, i, m.part, m.reduces) for m in rounds.receives(i, number)]
        assert sorted((i, m.peer, m.part, m.reduces) for i, m, _ in moved) == sorted(awaited)
        for _, message, content in moved:
            mine = held[message.peer]
            mine[message.part] = mine[message.part] + content if message.reduces else content
    return held


@pytest.mark.parametrize("members", SIZES)
def test_after_a_ring_all_reduce_every_member_has_the_sum_of_all(members: int) -> None:
    rounds = Ring(members, reduces=True)
    assert rounds.count == 2 * (members - 1)
    held = held_at_the_end(rounds, members, [set(range(members)) for _ in range(members)])
    everybody = Counter(range(members))
    assert all(mine == dict.fromkeys(range(members), everybody) for mine in held)


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("members", SIZES)
def test_after_a_tree_all_reduce_every_member_has_the_sum_of_all(members: int, chunks: int) -> None:
    parts = set(range(2 * chunks))
    held = held_at_the_end(DoubleTree(members, chunks), members, [parts for _ in range(members)])
    everybody = Counter(range(members))
    assert all(mine == dict.fromkeys(parts, everybody) for mine in held)


@pytest.mark.parametrize("members", SIZES)
def test_after_an_all_gather_every_member_has_every_shard_once(members: int) -> None:
    rounds = Ring(members)
    assert rounds.count == members - 1
    held = held_at_the_end(rounds, members, [{i} for i in range(members)])
    assert all(mine == {i: Counter([i]) for i in range(members)} for mine in held)


def test_an_all_to_all_sends_every_cell_off_the_diagonal() -> None:
    """3 members; cell (i, j) is part 3 i + j."""
    rounds = Direct(3)
    assert [rounds.sends(i, 0) for i in range(3)] == [
        [Message(1, 1), Message(2, 2)],
        [Message(0, 3), Message(2, 5)],
        [Message(0, 6), Message(1, 7)],
    ]
    assert rounds.receives(1, 0) == [Message(0, 1), Message(2, 7)]


def test_the_trees_of_four_are_nccls() -> None:
    """0 - 2 - (1, 3), and mirrored 3 - 1 - (0, 2). One chunk: the leaves send in round 0, 2 and 1 in
    round 1, the roots send down in round 2, and the sums reach the leaves in round 3."""
    rounds = DoubleTree(4, 1)
    assert rounds.count == 4
    assert [[list(rounds.sends(i, number)) for i in range(4)] for number in range(4)] == [
        [[Message(1, 1, True)], [Message(2, 0, True)], [Message(1, 1, True)], [Message(2, 0, True)]],
        [[], [Message(3, 1, True)], [Message(0, 0, True)], []],
        [[Message(2, 0)], [], [], [Message(1, 1)]],
        [[], [Message(0, 1), Message(2, 1)], [Message(1, 0), Message(3, 0)], []],
    ]


@pytest.mark.parametrize("members", [4, 8, 14, 16])
def test_who_has_children_in_one_tree_has_none_in_the_other(members: int) -> None:
    """So no member sends more than 2 n: one half up and twice down, the other half up. In a ring it is
    2 n (p - 1) / p."""
    sent = [collective(TREE_ALL_REDUCE, members, 1000).sent_by(i, members) for i in range(members)]
    assert max(sum(peers.values()) for peers in sent) == 2000
    assert sum(sum(peers.values()) for peers in sent) == 2 * (members - 1) * 1000


def test_each_half_goes_up_and_down_each_edge_of_its_tree() -> None:
    """1001 B among 4: 501 B over 0 - 2 - (1, 3), 500 B over 3 - 1 - (0, 2)."""
    sent = [collective(TREE_ALL_REDUCE, 4).sent_by(i, 4) for i in range(4)]
    assert sent == [{2: 501, 1: 500}, {2: 1001, 0: 500, 3: 500}, {0: 501, 1: 1001, 3: 501}, {2: 501, 1: 500}]


@pytest.mark.parametrize("kind", CollectiveKind)
@pytest.mark.parametrize("members", SIZES)
def test_what_a_member_sends_is_the_sum_of_its_rounds(kind: CollectiveKind, members: int) -> None:
    for size in (0, 1, 5, 1001, 3 * TREE_CHUNK_BYTES + 1):
        step = collective(kind, members, size)
        rounds, parts = step.rounds(members), step.parts(members)
        for index in range(members):
            sent: Counter[int] = Counter()
            for number in range(rounds.count):
                for message in rounds.sends(index, number):
                    sent[message.peer] += parts[message.part]
            assert step.sent_by(index, members) == step.sent(members)[index] == dict(sent)


def test_a_ring_sends_to_the_next_what_it_does_not_end_with() -> None:
    """Shards 10, 20, 30: member 0 passes on its own and 2's, not 1's."""
    step = Collective(id="c", group="g", kind=ALL_GATHER, sizes=((10, 20, 30),), label="")
    assert [step.sent_by(i, 3) for i in range(3)] == [{1: 40}, {2: 30}, {0: 50}]


def test_a_vector_is_cut_as_evenly_as_can_be() -> None:
    assert split(10, 4) == (3, 3, 2, 2)
    assert split(2, 3) == (1, 1, 0)
    assert tree_parts(11, 2) == (3, 3, 3, 2)


def test_a_tree_sends_in_chunks_of_bounded_size_and_number() -> None:
    """1 MiB is one chunk for each half, a byte more is two, and 1 GiB is no more than the bound."""
    assert [tree_chunks(size) for size in (0, 1, 2**20, 2**20 + 1, 2**30)] == [1, 1, 1, 2, TREE_MOST_CHUNKS]
