"""Where the requests of a batch run: how much they reuse, from where, and on which replica.

Attention is data-parallel within a unit: one replica computes a request, and ends up with all of its KV.
Reused KV that this replica does not hold has to be fetched (S1).
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from testbed.job import Request
from testbed.serving.cache.prefix_index import Holders, PrefixIndex, owners

HOME_SLACK = 1.25
"""A request goes to the replica with its cached prefix only up to this much imbalance.

That replica may then have this many times the new tokens that the fullest one would have otherwise.
Collectives make all replicas wait for the slowest, so imbalance costs the whole batch. A fetch costs the S1
time of one request, and compute can hide most of it.
"""


class Reuse(msgspec.Struct, frozen=True, kw_only=True):
    """The cached prefix that a request reuses. `holders[i]` are the replicas of `unit` with its block i."""

    unit: str
    holders: Holders


class Fetch(msgspec.Struct, frozen=True, kw_only=True):
    """`blocks` blocks that come from replica number `replica` of `unit`.

    If the last block that the request reuses is one of them, `ends_prefix` is set. Layers with a state need
    the state after that block.
    """

    unit: str
    replica: int
    blocks: int
    ends_prefix: bool = False


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a batch, with its replica (an index in the unit) and where its prefix comes from.

    The fetch of `under_way` started while the request was queued, and that of `fetches` did not.

    A split prompt is computed in several parts, each in a batch of its own. After `earlier_parts` parts,
    its replica has `earlier_tokens` of it, including reused ones. This batch computes `part_tokens`
    more; None: all the rest.
    """

    request: Request
    replica: int
    local_blocks: int
    fetches: tuple[Fetch, ...]
    under_way: tuple[Fetch, ...] = ()
    earlier_parts: int = 0
    earlier_tokens: int = 0
    part_tokens: int | None = None

    @property
    def local_tokens(self) -> int:
        return self.local_blocks * self.request.block_tokens + self.earlier_tokens

    @property
    def remote_tokens(self) -> int:
        return self.remote_blocks * self.request.block_tokens

    @property
    def remote_blocks(self) -> int:
        return sum(fetch.blocks for fetch in (*self.fetches, *self.under_way))

    @property
    def reused_blocks(self) -> int:
        return self.local_blocks + self.remote_blocks

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the new ones: reused, or computed in an earlier part."""
        return self.local_tokens + self.remote_tokens

    @property
    def new_tokens(self) -> int:
        if self.part_tokens is not None:
            return self.part_tokens
        return self.request.prompt_tokens - self.prefix_tokens

    @property
    def delivered_tokens(self) -> int:
        """Tokens whose KV goes to the decode worker now: new ones, and with the first part reused ones."""
        return self.prefix_tokens - self.earlier_tokens + self.new_tokens

    @property
    def last(self) -> bool:
        return self.prefix_tokens + self.new_tokens == self.request.prompt_tokens


def reusable_blocks(request: Request) -> tuple[int, ...]:
    """The blocks that a request may reuse: whole ones that leave at least one token to compute.

    The first output token is drawn from the output of the prompt's last token, so that one is always
    computed.
    """
    return request.blocks[: (request.prompt_tokens - 1) // request.block_tokens]


def cacheable_blocks(request: Request, tokens: int | None = None) -> tuple[int, ...]:
    """The blocks that a request leaves behind: those that its prompt, or its first `tokens`, fill."""
    filled = request.prompt_tokens if tokens is None else tokens
    return request.blocks[: filled // request.block_tokens]


def find_reuse(request: Request, unit: str, indexes: Mapping[str, PrefixIndex]) -> Reuse:
    """The longest prefix of `request` that any unit holds. `unit` itself wins a tie, then the first."""
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
    fixed: Mapping[int, Assigned] | None = None,
    parts: Mapping[int, int] | None = None,
    taken: Sequence[int] | None = None,
) -> list[Assigned]:
    """Give each request of `batch` one of `unit`'s replicas. The result is in the order of `batch`.

    The choice is greedy, with the most new tokens first. A request goes to its home, the replica that holds
    most of its prefix, if `HOME_SLACK` allows it, and otherwise to the replica with the fewest new
    tokens so far. A tie goes to the replica that has computed the fewest tokens in the run
    (`computed_tokens`, one number per replica); otherwise all small batches would land on the first one.
    Requests of one batch do not share KV that neither finds cached: both compute it.

    `fixed` has, by request id, what was assigned while the request was queued. Such a request keeps its
    replica and what it fetched, and also reuses what has been cached beyond that since. `parts` has, by
    request id, the new tokens that this batch computes if these are not all. `taken` are the new tokens
    that each replica has in this batch already.
    """
    part_of = parts or {}
    reuse = {request.id: find_reuse(request, unit, indexes) for request in batch}
    new = {r.id: part_of.get(r.id, tokens_to_compute(r, reuse[r.id])) for r in batch}
    load = list(taken or [0] * replicas)
    before = computed_tokens or [0] * replicas
    assigned: dict[int, Assigned] = {}
    for request in batch:
        if fixed is not None and request.id in fixed:
            local = indexes[unit].lookup(reusable_blocks(request))
            item = with_newer(fixed[request.id], unit, local, reuse[request.id])
            load[item.replica] += part_of.get(request.id, item.new_tokens)
            assigned[request.id] = item
    open_to_choice = [request for request in batch if request.id not in assigned]
    for request in sorted(open_to_choice, key=lambda r: (-new[r.id], r.id)):
        local = indexes[unit].lookup(reusable_blocks(request))
        replica = _choose_replica(load, before, new[request.id], _home(local, replicas, load))
        load[replica] += new[request.id]
        assigned[request.id] = _sources(request, replica, unit, local, reuse[request.id])
    return [
        msgspec.structs.replace(assigned[r.id], part_tokens=part_of[r.id])
        if r.id in part_of
        else assigned[r.id]
        for r in batch
    ]


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


def with_newer(item: Assigned, unit: str, local: Holders, reuse: Reuse) -> Assigned:
    """Return `item`, whose fetches are under way, with what can be reused by now beyond them."""
    before = item.reused_blocks
    newer = _sources(item.request, item.replica, unit, local, reuse, beyond=before)
    return Assigned(
        request=item.request,
        replica=item.replica,
        local_blocks=item.local_blocks + newer.local_blocks,
        fetches=newer.fetches,
        under_way=item.fetches,
    )


def _sources(
    request: Request, replica: int, unit: str, local: Holders, reuse: Reuse, *, beyond: int = 0
) -> Assigned:
    """Take each reused block from the request's own replica if it is there, and fetch it otherwise.

    The first `beyond` blocks are left out.
    """
    fetched: Counter[int] = Counter()
    last_owner: int | None = None
    for i, owner in enumerate(owners(reuse.holders)):
        if i >= beyond and (i >= len(local) or replica not in local[i]):
            fetched[owner] += 1
            if i == len(reuse.holders) - 1:
                last_owner = owner
    return Assigned(
        request=request,
        replica=replica,
        local_blocks=max(0, len(reuse.holders) - beyond) - fetched.total(),
        fetches=tuple(
            Fetch(unit=reuse.unit, replica=owner, blocks=blocks, ends_prefix=owner == last_owner)
            for owner, blocks in sorted(fetched.items())
        ),
    )
