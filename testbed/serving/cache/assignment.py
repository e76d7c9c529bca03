"""Where the requests of a batch run: how much they reuse, from where, and on which replica.

Attention is data-parallel within a unit: one replica computes a request, and ends up with all of its KV.
Reused KV that this replica does not hold has to be fetched (S1).
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from testbed.job import Request
from testbed.serving.cache.prefix_index import Holders, PrefixIndex, owners
from testbed.serving.turns import Turns

HOME_SLACK = 1.25
"""A request goes to the replica with its cached prefix only up to this much imbalance.

That replica may then have this many times the new tokens that the fullest one would have otherwise.
Collectives make all replicas wait for the slowest, so imbalance costs the whole batch. A fetch costs the S1
time of one request, and compute can hide most of it.
"""


Senders = Turns[tuple[str, int | None]]
"""When each unit, and each replica (unit, number) of it, was last told to send a prefix."""


class Reuse(msgspec.Struct, frozen=True, kw_only=True):
    """The cached prefix that a request reuses. `holders[i]` are the replicas of `unit` with its block i."""

    unit: str
    holders: Holders


class Fetch(msgspec.Struct, frozen=True, kw_only=True):
    """`blocks` blocks that come from replica number `replica` of `unit`.

    In the prompt, they are the blocks of `spans`, each (begin, end). If the last block that the request
    reuses is one of them, `ends_prefix` is set. Layers with a state need the state after that block.
    """

    unit: str
    replica: int
    blocks: int
    ends_prefix: bool = False
    spans: tuple[tuple[int, int], ...] = ()


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a batch, with its replica (an index in the unit) and where its prefix comes from.

    The fetch of `under_way` started while the request was queued, and that of `fetches` did not.

    A split prompt is computed in several parts, each in a batch of its own. After `earlier_parts` parts,
    its replica has `earlier_tokens` of it, including reused ones. This batch computes `part_tokens`
    more; None: all the rest.

    `recomputed_blocks` are cached on other replicas, but computed here. The estimates are as in
    `testbed.record.RequestRow`.
    """

    request: Request
    replica: int
    local_blocks: int
    fetches: tuple[Fetch, ...]
    under_way: tuple[Fetch, ...] = ()
    earlier_parts: int = 0
    earlier_tokens: int = 0
    part_tokens: int | None = None
    recomputed_blocks: int = 0
    fetch_estimate_ns: int | None = None
    recompute_estimate_ns: int | None = None

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


Choose = Callable[[str, Assigned, Assigned, Sequence[Assigned]], Assigned]
"""Chooses between fetching and recomputing on a unit, given both and what is in the batch already."""


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


def common_blocks(one: Sequence[int], other: Sequence[int]) -> int:
    """How many blocks at the beginning of two prompts are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def find_reuse(
    request: Request, unit: str, indexes: Mapping[str, PrefixIndex], senders: Senders | None = None
) -> Reuse:
    """The longest prefix of `request` that any unit holds.

    `unit` itself wins a tie, then the unit that was told to send longest ago, then the first.
    """
    blocks = reusable_blocks(request)
    turns = senders or Turns()
    best, holders = unit, indexes[unit].lookup(blocks)
    if len(holders) == len(blocks):
        return Reuse(unit=best, holders=holders)
    key = -len(holders), False, turns.last((unit, None))
    # A unit that holds more has the first block that this one lacks. Of many units, most do not.
    beyond = blocks[len(holders)]
    for name in [name for name, index in indexes.items() if beyond in index.holders]:
        index, last = indexes[name], turns.last((name, None))
        # Of the others, many hold as much as the best one and no more, and lose the tie.
        more = len(holders) < len(blocks) and blocks[len(holders)] in index.holders
        if not more and key <= (-len(holders), True, last):
            continue
        found = index.lookup(blocks)
        this = -len(found), True, last
        if this < key:
            best, holders, key = name, found, this
    return Reuse(unit=best, holders=holders)


def told_to_send(item: Assigned, senders: Senders) -> None:
    """Remember in `senders` who sends what `item` fetches."""
    for fetch in item.fetches:
        senders.take((fetch.unit, fetch.replica))
        senders.take((fetch.unit, None))


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
    senders: Senders | None = None,
    choose: Choose | None = None,
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
    that each replica has in this batch already. Of several holders of a prefix, the one of `senders` that was
    told to send longest ago sends it, and the requests of a batch take turns. `choose` decides whether it is
    fetched; None: always.
    """
    part_of = parts or {}
    turns = Senders() if senders is None else senders.copy()
    new = {r.id: part_of.get(r.id, tokens_to_compute(r, find_reuse(r, unit, indexes))) for r in batch}
    load = list(taken or [0] * replicas)
    before = computed_tokens or [0] * replicas
    assigned: dict[int, Assigned] = {}
    for request in batch:
        if fixed is not None and request.id in fixed:
            local = indexes[unit].lookup(reusable_blocks(request))
            source = find_reuse(request, unit, indexes, turns)
            item = with_newer(fixed[request.id], unit, local, source, turns)
            load[item.replica] += part_of.get(request.id, item.new_tokens)
            assigned[request.id] = item
            told_to_send(item, turns)
    open_to_choice = [request for request in batch if request.id not in assigned]
    for request in sorted(open_to_choice, key=lambda r: (-new[r.id], r.id)):
        local = indexes[unit].lookup(reusable_blocks(request))
        source = find_reuse(request, unit, indexes, turns)

        def on(
            replica: int, request: Request = request, local: Holders = local, source: Reuse = source
        ) -> Assigned:
            item = _sources(request, replica, unit, local, source, turns)
            if choose is None or not item.fetches:
                return item
            return choose(unit, item, _without_fetches(item, local), tuple(assigned.values()))

        item = on(_least(load, before))
        home = _home(local, replicas, load, before)
        if home is not None and home != item.replica:
            here, part = on(home), part_of.get(request.id)
            if stays_home(load, here, item, part=part):
                item = here
        load[item.replica] += part_of.get(request.id, item.new_tokens)
        assigned[request.id] = item
        told_to_send(item, turns)
    return [_in_part(assigned[r.id], part_of[r.id]) if r.id in part_of else assigned[r.id] for r in batch]


def stays_home(load: Sequence[int], here: Assigned, away: Assigned, *, part: int | None = None) -> bool:
    """Whether a request goes `here`, to the replica with its prefix, and not `away`, by `HOME_SLACK`.

    `load` are the new tokens of each replica so far, and `part` those of the request if these are not all.
    """
    at_home, elsewhere = (each.new_tokens if part is None else part for each in (here, away))
    balanced = max(*load, load[away.replica] + elsewhere)
    return load[here.replica] + at_home <= HOME_SLACK * balanced


def _in_part(item: Assigned, tokens: int) -> Assigned:
    """`item`, of which a batch computes at most `tokens` new ones."""
    return msgspec.structs.replace(item, part_tokens=min(tokens, item.new_tokens))


def _home(local: Holders, replicas: int, load: Sequence[int], before: Sequence[int]) -> int | None:
    held = [sum(replica in holders for holders in local) for replica in range(replicas)]
    if not any(held):
        return None
    return min(range(replicas), key=lambda i: (-held[i], load[i], before[i], i))


def _least(load: Sequence[int], before: Sequence[int]) -> int:
    return min(range(len(load)), key=lambda i: (load[i], before[i], i))


def _without_fetches(item: Assigned, local: Holders) -> Assigned:
    """`item`, if all from the first block that its replica lacks is computed."""
    held = next((i for i, holders in enumerate(local) if item.replica not in holders), len(local))
    return msgspec.structs.replace(
        item, local_blocks=held, fetches=(), recomputed_blocks=item.reused_blocks - held
    )


def with_newer(item: Assigned, unit: str, local: Holders, reuse: Reuse, turns: Senders) -> Assigned:
    """Return `item`, whose fetches are under way, with what can be reused by now beyond them."""
    before = item.reused_blocks
    newer = _sources(item.request, item.replica, unit, local, reuse, turns, beyond=before)
    return Assigned(
        request=item.request,
        replica=item.replica,
        local_blocks=item.local_blocks + newer.local_blocks,
        fetches=newer.fetches,
        under_way=item.fetches,
    )


def _sources(
    request: Request,
    replica: int,
    unit: str,
    local: Holders,
    reuse: Reuse,
    turns: Senders,
    *,
    beyond: int = 0,
) -> Assigned:
    """Take each reused block from the request's own replica if it is there, and fetch it otherwise.

    The first `beyond` blocks are left out.
    """
    fetched: dict[int, list[int]] = {}
    last_owner: int | None = None
    for i, owner in enumerate(owners(reuse.holders, lambda replica: turns.last((reuse.unit, replica)))):
        if i >= beyond and (i >= len(local) or replica not in local[i]):
            fetched.setdefault(owner, []).append(i)
            if i == len(reuse.holders) - 1:
                last_owner = owner
    return Assigned(
        request=request,
        replica=replica,
        local_blocks=max(0, len(reuse.holders) - beyond) - sum(map(len, fetched.values())),
        fetches=tuple(
            Fetch(
                unit=reuse.unit,
                replica=owner,
                blocks=len(blocks),
                ends_prefix=owner == last_owner,
                spans=_spans(blocks),
            )
            for owner, blocks in sorted(fetched.items())
        ),
    )


def _spans(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Runs of consecutive ones among ascending `numbers`, each as (first, last + 1)."""
    begins = [n for i, n in enumerate(numbers) if i == 0 or numbers[i - 1] != n - 1]
    ends = [n + 1 for i, n in enumerate(numbers) if i == len(numbers) - 1 or numbers[i + 1] != n + 1]
    return tuple(zip(begins, ends, strict=True))
