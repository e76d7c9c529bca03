"""Where the requests of a batch run: how much they reuse, from where, and on which replica.

Inside a unit attention is data-parallel: each request is computed by one replica, which ends up
with all of its KV. What the request reuses and its replica does not hold has to be fetched (S1).
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from testbed.job import Request
from testbed.serving.prefix import Holders, PrefixIndex, owners

HOME_SLACK = 1.25
"""A request follows its cached prefix only while no replica gets more than this much more work.

Collectives make all replicas wait for the slowest, so imbalance costs the whole batch; a fetch
costs one request's S1 time, most of which compute can hide.
"""


class Reuse(msgspec.Struct, frozen=True, kw_only=True):
    """The cached prefix a request uses: `holders[i]` are the replicas of `unit` with its block i."""

    unit: str
    holders: Holders


class Fetch(msgspec.Struct, frozen=True, kw_only=True):
    """`blocks` blocks come from replica `replica` of unit `unit`."""

    unit: str
    replica: int
    blocks: int


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a batch with its replica (an index in the unit) and where its prefix comes from."""

    request: Request
    replica: int
    local_blocks: int
    fetches: tuple[Fetch, ...]

    @property
    def local_tokens(self) -> int:
        return self.local_blocks * self.request.block_tokens

    @property
    def remote_tokens(self) -> int:
        return sum(fetch.blocks for fetch in self.fetches) * self.request.block_tokens

    @property
    def new_tokens(self) -> int:
        return self.request.prompt_tokens - self.local_tokens - self.remote_tokens


def reusable_blocks(request: Request) -> tuple[int, ...]:
    """The blocks a request may reuse: whole ones, leaving at least one token to compute.

    The last token's output is what the first generated token is drawn from, so it is never reused.
    """
    return request.blocks[: (request.prompt_tokens - 1) // request.block_tokens]


def cacheable_blocks(request: Request) -> tuple[int, ...]:
    """The blocks a request leaves behind: those its prompt fills."""
    return request.blocks[: request.prompt_tokens // request.block_tokens]


def find_reuse(request: Request, unit: str, indexes: Mapping[str, PrefixIndex]) -> Reuse:
    """The longest cached prefix of `request` in any unit; `unit` itself wins a tie, then the first."""
    blocks = reusable_blocks(request)
    best = Reuse(unit=unit, holders=indexes[unit].lookup(blocks))
    for name, index in indexes.items():
        holders = index.lookup(blocks)
        if len(holders) > len(best.holders):
            best = Reuse(unit=name, holders=holders)
    return best


def tokens_to_compute(request: Request, reuse: Reuse) -> int:
    return request.prompt_tokens - len(reuse.holders) * request.block_tokens


def assign(
    batch: Sequence[Request],
    unit: str,
    replicas: int,
    indexes: Mapping[str, PrefixIndex],
    *,
    computed_tokens: Sequence[int] | None = None,
) -> list[Assigned]:
    """Give each request of `batch` one of `unit`'s replicas; the result is in the order of `batch`.

    Greedy: largest first, each to the replica with the fewest new tokens so far, or to its home
    (the replica that holds most of its prefix) where `HOME_SLACK` allows it. Two requests of one
    batch do not share what neither finds cached: both compute it. Ties go to the replica that has
    computed least so far (`computed_tokens`, one number per replica), else small batches would all
    land on the first one.
    """
    reuse = {request.id: find_reuse(request, unit, indexes) for request in batch}
    new = {request.id: tokens_to_compute(request, reuse[request.id]) for request in batch}
    load = [0] * replicas
    before = computed_tokens or [0] * replicas
    assigned: dict[int, Assigned] = {}
    for request in sorted(batch, key=lambda r: (-new[r.id], r.id)):
        local = indexes[unit].lookup(reusable_blocks(request))
        replica = _choose_replica(load, before, new[request.id], _home(local, replicas, load))
        load[replica] += new[request.id]
        assigned[request.id] = _sources(request, replica, unit, local, reuse[request.id])
    return [assigned[request.id] for request in batch]


def _home(local: Holders, replicas: int, load: Sequence[int]) -> int | None:
    held = [sum(replica in holders for holders in local) for replica in range(replicas)]
    if not any(held):
        return None
    return min(range(replicas), key=lambda i: (-held[i], load[i], i))


def _choose_replica(load: Sequence[int], before: Sequence[int], new_tokens: int, home: int | None) -> int:
    least = min(range(len(load)), key=lambda i: (load[i], before[i], i))
    if home is None:
        return least
    balanced = max(*load, load[least] + new_tokens)
    return home if load[home] + new_tokens <= HOME_SLACK * balanced else least


def _sources(request: Request, replica: int, unit: str, local: Holders, reuse: Reuse) -> Assigned:
    """Each reused block is taken from the request's own replica where it is, else fetched."""
    fetched: Counter[int] = Counter()
    for i, owner in enumerate(owners(reuse.holders)):
        if i >= len(local) or replica not in local[i]:
            fetched[owner] += 1
    return Assigned(
        request=request,
        replica=replica,
        local_blocks=len(reuse.holders) - fetched.total(),
        fetches=tuple(
            Fetch(unit=reuse.unit, replica=owner, blocks=blocks) for owner, blocks in sorted(fetched.items())
        ),
    )
