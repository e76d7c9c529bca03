"""Collectives over real process groups: uneven sizes, empty cells, sums, and what is found wrong."""

from collections.abc import Sequence

import pytest
from worker_groups import CPU, connected, side_by_side

from workers.collectives import CollectiveGroup
from workers.payload import Payloads, WrongPayload

MEMBERS = (4, 7, 9)


def groups(*, seeds: Sequence[int] = (1, 1, 1)) -> list[CollectiveGroup]:
    """Both ends of everything: the three members' sides, with the seeds they believe in."""
    return [
        CollectiveGroup("ep", side, MEMBERS, rank, Payloads(seed), CPU, staged=True)
        for side, rank, seed in zip(connected(3), MEMBERS, seeds, strict=True)
    ]


def all_to_all(
    members: list[CollectiveGroup], sizes: Sequence[Sequence[int]], *, verify: bool = True
) -> None:
    side_by_side([lambda m=m: m.all_to_all("c", sizes, verify=verify) for m in members])  # type: ignore[misc]


def all_reduce(members: list[CollectiveGroup], size: int, *, verify: bool = True) -> None:
    side_by_side([lambda m=m: m.all_reduce("c", size, verify=verify) for m in members])  # type: ignore[misc]


def test_a_member_knows_its_place() -> None:
    assert [member.index for member in groups()] == [0, 1, 2]


@pytest.mark.parametrize(
    "sizes",
    [
        ((0, 1000, 1000), (1000, 0, 1000), (1000, 1000, 0)),
        ((0, 70_001, 3), (11, 0, 50_000), (1, 2, 0)),
        ((0, 0, 500), (0, 0, 0), (7, 0, 0)),  # a member that sends nothing, one that hears little
        ((0, 0, 0), (0, 0, 0), (0, 0, 0)),
    ],
    ids=["even", "uneven", "sparse", "empty"],
)
def test_an_all_to_all_delivers_every_part_to_its_member(sizes: tuple[tuple[int, ...], ...]) -> None:
    all_to_all(groups(), sizes)


def test_a_group_is_used_again_and_again() -> None:
    members = groups()
    for size in (10, 20_000, 30):
        all_to_all(members, ((0, size, 1), (2, 0, size), (size, 3, 0)))
        all_reduce(members, size)


def test_an_all_to_all_names_the_rank_whose_bytes_are_wrong() -> None:
    with pytest.raises(WrongPayload, match=r"^c: wrong bytes from rank 7$"):
        all_to_all(groups(seeds=(1, 2, 1)), ((0, 0, 50), (0, 0, 50), (0, 0, 0)))


@pytest.mark.parametrize("size", [1, 8, 1003, 80_000])
def test_an_all_reduce_adds_up_all_members(size: int) -> None:
    all_reduce(groups(), size)


def test_an_all_reduce_with_a_wrong_summand_is_noticed() -> None:
    with pytest.raises(WrongPayload, match=r"^c: wrong sum on rank [479]$"):
        all_reduce(groups(seeds=(1, 1, 2)), 800)


def test_what_is_not_verified_is_not_looked_at() -> None:
    members = groups(seeds=(1, 2, 3))
    all_to_all(members, ((0, 5, 5), (5, 0, 5), (5, 5, 0)), verify=False)
    all_reduce(members, 80, verify=False)
