"""Collectives over real process groups: uneven sizes, empty cells, sums, and wrong bytes."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from worker_groups import CPU, connected, side_by_side

from workers.collectives import CollectiveGroup
from workers.payload import Payloads, WrongPayload
from workers.plan import Collective, CollectiveKind

MEMBERS = (4, 7, 9)
MESSAGES, GROUPED_CALLS = True, False
"""The two ways to carry out rounds: the one for gloo, and the one for NCCL, which works on gloo as well."""


def groups(*, seeds: Sequence[int] = (1, 1, 1), staged: bool = MESSAGES) -> list[CollectiveGroup]:
    """The three members' sides of a group, each with the seed that it is given."""
    return [
        CollectiveGroup("ep", side, MEMBERS, rank, Payloads(seed), CPU, staged=staged)
        for side, rank, seed in zip(connected(3), MEMBERS, seeds, strict=True)
    ]


class Counted:
    """A side of a process group that counts the bytes that it sends to each member."""

    def __init__(self, side: Any) -> None:
        self._side = side
        self.sent: Counter[int] = Counter()

    def send(self, tensors: list[torch.Tensor], peer: int, tag: int) -> Any:
        self.sent[peer] += sum(tensor.nbytes for tensor in tensors)
        return self._side.send(tensors, peer, tag)

    def recv(self, tensors: list[torch.Tensor], peer: int, tag: int) -> Any:
        return self._side.recv(tensors, peer, tag)


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
        ((4, 5, 6), (7, 8, 9), (10, 11, 12)),
    ],
    ids=["even", "uneven", "sparse", "empty", "to itself too"],
)
@pytest.mark.parametrize("staged", [MESSAGES, GROUPED_CALLS])
def test_an_all_to_all_delivers_every_part_to_its_member(
    sizes: tuple[tuple[int, ...], ...], staged: bool
) -> None:
    all_to_all(groups(staged=staged), sizes)


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


@pytest.mark.parametrize("staged", [MESSAGES, GROUPED_CALLS])
@pytest.mark.parametrize("size", [1, 8, 1003, 80_000])
@pytest.mark.parametrize("chunks", [1, 4])
def test_a_tree_all_reduce_adds_up_all_members(chunks: int, size: int, staged: bool) -> None:
    members = groups(staged=staged)
    side_by_side([lambda m=m: m.tree_all_reduce("c", size, chunks, verify=True) for m in members])  # type: ignore[misc]


def test_a_tree_all_reduce_with_a_wrong_summand_is_noticed() -> None:
    members = groups(seeds=(1, 2, 1))
    with pytest.raises(WrongPayload, match=r"^c: wrong sum on rank [479]$"):
        side_by_side([lambda m=m: m.tree_all_reduce("c", 800, 2, verify=True) for m in members])  # type: ignore[misc]


@pytest.mark.parametrize("staged", [MESSAGES, GROUPED_CALLS])
@pytest.mark.parametrize("sizes", [(1000, 1000, 1000), (70_001, 3, 500), (0, 9, 0)])
def test_an_all_gather_gives_every_shard_to_everybody(sizes: tuple[int, ...], staged: bool) -> None:
    members = groups(staged=staged)
    side_by_side([lambda m=m: m.all_gather("c", sizes, verify=True) for m in members])  # type: ignore[misc]


def test_an_all_gather_names_the_rank_whose_bytes_are_wrong() -> None:
    members = groups(seeds=(1, 1, 2))
    with pytest.raises(WrongPayload, match=r"^c: wrong bytes from rank [479]$"):
        side_by_side([lambda m=m: m.all_gather("c", (50, 50, 50), verify=True) for m in members])  # type: ignore[misc]


@pytest.mark.parametrize("staged", [MESSAGES, GROUPED_CALLS])
def test_ring_attention_computes_over_every_block_once_and_in_turn(staged: bool) -> None:
    seen: dict[int, list[int]] = {rank: [] for rank in MEMBERS}

    def part(member: CollectiveGroup, rank: int) -> Callable[[], None]:
        return lambda: member.ring_attention("c", (900, 5, 40_000), seen[rank].append, verify=True)

    members = groups(staged=staged)
    side_by_side([part(member, rank) for member, rank in zip(members, MEMBERS, strict=True)])
    assert seen == {4: [0, 1, 2], 7: [0, 1, 2], 9: [0, 1, 2]}


def test_a_block_of_ring_attention_is_on_its_way_before_it_is_computed_over() -> None:
    """Member 1 sends its own 20 B, then the 10 B that it received from member 0, and nothing more."""
    sides = [Counted(side) for side in connected(3)]
    sent: list[int] = []

    def part(side: Counted, rank: int) -> Callable[[], None]:
        member = CollectiveGroup("sp", side, MEMBERS, rank, Payloads(1), CPU, staged=True)
        compute = (lambda number: sent.append(side.sent[2])) if rank == 7 else lambda number: None
        return lambda: member.ring_attention("c", (10, 20, 30), compute, verify=True)

    side_by_side([part(side, rank) for side, rank in zip(sides, MEMBERS, strict=True)])
    assert sent == [20, 30, 30]


KINDS = [
    (CollectiveKind.ALL_TO_ALL, ((0, 40, 70_000), (1, 0, 1), (500, 0, 0))),
    (CollectiveKind.ALL_REDUCE, ((9600,),)),
    (CollectiveKind.TREE_ALL_REDUCE, ((9600,),)),
    (CollectiveKind.TREE_ALL_REDUCE, ((3 * 2**20,),)),
    (CollectiveKind.ALL_GATHER, ((100, 0, 2000),)),
    (CollectiveKind.RING_ATTENTION, ((100, 0, 2000),)),
]


def carried_out(planned: Collective, bytes_scale: float) -> tuple[list[Counted], list[int]]:
    """The sides of a group that carried out `planned`, and the rounds in which any member computed."""
    sides = [Counted(side) for side in connected(3)]
    computed: list[int] = []

    def part(side: Counted, rank: int) -> Callable[[], None]:
        member = CollectiveGroup("ep", side, MEMBERS, rank, Payloads(1), CPU, staged=True)
        return lambda: member.carry_out(planned, bytes_scale, computed.append, verify=True)

    side_by_side([part(side, rank) for side, rank in zip(sides, MEMBERS, strict=True)])
    return sides, computed


@pytest.mark.parametrize(("kind", "sizes"), KINDS)
@pytest.mark.parametrize("bytes_scale", [1.0, 0.013])
def test_every_kind_of_plan_is_carried_out_at_any_scale(
    kind: CollectiveKind, sizes: tuple[tuple[int, ...], ...], bytes_scale: float
) -> None:
    carried_out(Collective(id="c", group="ep", kind=kind, sizes=sizes, label=""), bytes_scale)


@pytest.mark.parametrize(("kind", "sizes"), KINDS)
def test_a_member_sends_to_each_peer_what_the_plan_says(
    kind: CollectiveKind, sizes: tuple[tuple[int, ...], ...]
) -> None:
    """Vectors are a multiple of 8 B x members, so cutting them into integers or into bytes is the same."""
    planned = Collective(id="c", group="ep", kind=kind, sizes=sizes, label="")
    sides, _ = carried_out(planned, 1.0)
    sent = [{peer: size for peer, size in planned.sent_by(i, 3).items() if size} for i in range(3)]
    assert [dict(side.sent) for side in sides] == sent


@pytest.mark.parametrize(("round_seconds", "computes"), [((), 0), (((0.1,) * 3,) * 3, 9)])
def test_ring_attention_computes_where_the_plan_has_compute(
    round_seconds: tuple[tuple[float, ...], ...], computes: int
) -> None:
    planned = Collective(
        id="c",
        group="ep",
        kind=CollectiveKind.RING_ATTENTION,
        sizes=((10, 20, 30),),
        label="",
        round_seconds=round_seconds,
    )
    assert len(carried_out(planned, 1.0)[1]) == computes


def test_what_is_not_verified_is_not_looked_at() -> None:
    members = groups(seeds=(1, 2, 3))
    all_to_all(members, ((0, 5, 5), (5, 0, 5), (5, 5, 0)), verify=False)
    all_reduce(members, 80, verify=False)
