"""The prefix index of a unit, and the choice of replicas to fetch a prefix from."""

import pytest

from testbed.serving.cache.prefix_index import PrefixIndex, owners


def test_lookup_returns_the_longest_held_prefix() -> None:
    index = PrefixIndex(replicas=2)
    index.insert((1, 2, 3), replica=1)
    assert index.lookup((1, 2, 9, 3)) == ((1,), (1,))
    assert index.lookup((9, 1, 2)) == ()


def test_lookup_names_every_replica_that_holds_a_block() -> None:
    index = PrefixIndex(replicas=3)
    index.insert((1, 2, 3), replica=2)
    index.insert((1, 2), replica=0)
    assert index.lookup((1, 2, 3)) == ((0, 2), (0, 2), (2,))


def test_a_full_replica_forgets_the_end_of_its_oldest_prefix() -> None:
    """Room for 4 blocks: inserting 8, 9 after 1, 2, 3 costs block 3, the least useful of them."""
    index = PrefixIndex(replicas=1, capacity_blocks=4)
    index.insert((1, 2, 3), replica=0)
    index.insert((8, 9), replica=0)
    assert index.lookup((1, 2, 3)) == ((0,), (0,))
    assert index.lookup((8, 9)) == ((0,), (0,))


def test_using_a_prefix_again_keeps_it() -> None:
    index = PrefixIndex(replicas=1, capacity_blocks=4)
    index.insert((1, 2), replica=0)
    index.insert((8, 9), replica=0)
    index.insert((1, 2), replica=0)
    index.insert((5,), replica=0)
    assert index.lookup((1, 2)) == ((0,), (0,))
    assert index.lookup((8, 9)) == ((0,),)


def test_a_lookup_is_no_use() -> None:
    index = PrefixIndex(replicas=1, capacity_blocks=2)
    index.insert((1,), replica=0)
    index.insert((2,), replica=0)
    index.lookup((1,))
    index.insert((3,), replica=0)
    assert index.lookup((1,)) == ()


def test_replicas_forget_each_for_itself() -> None:
    index = PrefixIndex(replicas=2, capacity_blocks=1)
    index.insert((1,), replica=0)
    index.insert((1,), replica=1)
    index.insert((2,), replica=0)
    assert index.lookup((1,)) == ((1,),)


def test_a_cache_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="room for a block, not for 0"):
        PrefixIndex(replicas=1, capacity_blocks=0)


def test_owners_change_as_seldom_as_possible() -> None:
    """Replica 1 holds blocks 0 and 1, replica 0 only block 0: two owners, not three."""
    assert owners(((0, 1), (1,), (2,))) == (1, 1, 2)


def test_the_first_of_equal_owners_is_taken() -> None:
    assert owners(((0, 1), (0, 1))) == (0, 0)


def test_no_prefix_has_no_owners() -> None:
    assert owners(()) == ()
