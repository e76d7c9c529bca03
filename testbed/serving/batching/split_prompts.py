"""Prompts that are computed in several parts: how far each has got, and where it goes on."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from testbed.job import Request
from testbed.serving.batching.forming import Part
from testbed.serving.cache.assignment import Assigned, Choose, Senders, assign
from testbed.serving.cache.prefix_index import PrefixIndex
from workers.plan import RequestPlan


class _Begun(NamedTuple):
    """The replica, the number of parts computed so far, and the prompt tokens that the replica has now."""

    replica: int
    parts: int
    tokens: int


class BegunPrompts:
    """Remembers the prompts that have been computed in part."""

    def __init__(self) -> None:
        self._begun: dict[int, _Begun] = {}

    def left(self, request: Request) -> int | None:
        """The tokens still to compute; None if no part has been computed."""
        begun = self._begun.get(request.id)
        return None if begun is None else request.prompt_tokens - begun.tokens

    def next_part(self, part: Part) -> Assigned | None:
        """`part` on the replica that computed the parts before it; None if it is the first part."""
        begun = self._begun.get(part.request.id)
        if begun is None:
            return None
        return Assigned(
            request=part.request,
            replica=begun.replica,
            local_blocks=0,
            fetches=(),
            earlier_parts=begun.parts,
            earlier_tokens=begun.tokens,
            part_tokens=part.tokens,
        )

    def computed(self, item: RequestPlan, replica: int) -> None:
        """The batch with `item` has ended."""
        before = self._begun.pop(item.request, None)
        if not item.last:
            parts = 1 if before is None else before.parts + 1
            self._begun[item.request] = _Begun(replica, parts, tokens_by_then(item))


def tokens_by_then(item: RequestPlan) -> int:
    """Tokens of the prompt that its replica has when the batch with `item` has ended."""
    return item.local_tokens + item.remote_tokens + item.new_tokens


def assign_parts(
    batch: Sequence[Part],
    unit: str,
    indexes: Mapping[str, PrefixIndex],
    *,
    begun: BegunPrompts,
    computed_tokens: Sequence[int],
    fixed: Mapping[int, Assigned],
    senders: Senders | None = None,
    choose: Choose | None = None,
) -> list[Assigned]:
    """`assignment.assign` for a batch with prompts that are computed in part: these keep their replica."""
    taken = [0] * len(computed_tokens)
    assigned: dict[int, Assigned] = {}
    for part in batch:
        item = begun.next_part(part)
        if item is not None:
            taken[item.replica] += item.new_tokens
            assigned[item.request.id] = item
    fresh = assign(
        [part.request for part in batch if part.request.id not in assigned],
        unit,
        len(computed_tokens),
        indexes,
        computed_tokens=computed_tokens,
        fixed=fixed,
        parts={part.request.id: part.tokens for part in batch if part.tokens is not None},
        taken=taken,
        senders=senders,
        choose=choose,
    )
    assigned.update({item.request.id: item for item in fresh})
    return [assigned[part.request.id] for part in batch]
