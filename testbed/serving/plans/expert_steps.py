"""The experts of one layer: what share of the tokens goes to each rank, and what the ranks compute."""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate, pairwise

from testbed.models.sizes import (
    all_to_all_bytes_per_token,
    expert_flops_per_visit,
    expert_weight_bytes,
    shared_flops_per_token,
    shared_weight_bytes,
)
from testbed.placement import expert_groups
from testbed.serving.plans.stage_work import Need, StageWork, StepOptions
from workers.plan import Collective, CollectiveKind, Step


def expert_steps(stage: StageWork, layer: int, options: StepOptions) -> list[Step]:
    """Dispatch, experts and combine. Each of the `tp` ranks of a part dispatches its share of the tokens.

    Rank i sends member j of its group `tokens_i / tp * top_k * share_j` hidden states, where `share_j`
    is the share of the visits that go to the experts of j. Combine returns them. Every rank has the
    shared expert, if the model has one, for its own tokens.
    """
    model, tp = stage.model, stage.tp
    groups = expert_groups(stage.placement, stage.unit, stage.stage)
    tokens = dict(zip(stage.ranks, stage.new_tokens, strict=True))
    dispatch: list[Step] = []
    combine: list[Step] = []
    needs: list[Need] = []
    for name, members in groups:
        shares = None
        if options.expert_skew:
            shares = member_shares(
                len(members),
                experts=model.experts,
                top_k=model.top_k,
                skew=options.expert_skew,
                seed=options.seed,
                layer=layer,
            )
        group_tokens = [tokens[rank] for rank in members]
        if name is not None and any(group_tokens):
            out = [own * all_to_all_bytes_per_token(model) for own in group_tokens]
            sizes = tuple(_dealt(size, tp, len(members), shares) for size in out)
            back = tuple(zip(*sizes, strict=True))
            for label, each, steps in (("dispatch", sizes, dispatch), ("combine", back, combine)):
                steps.append(
                    Collective(
                        id=f"{label}.{name}",
                        group=name,
                        kind=CollectiveKind.ALL_TO_ALL,
                        sizes=each,
                        label=label,
                    )
                )
        needs += _needs(stage, group_tokens, shares)
    return [*dispatch, stage.compute("experts", needs), *combine]


def _dealt(size: int, tp: int, members: int, shares: Sequence[float] | None) -> tuple[int, ...]:
    """Bytes that a rank sends to each member: `size / tp` in all, up to rounding."""
    if shares is None:
        return (size // (members * tp),) * members
    ends = [round(size / tp * end) for end in accumulate(shares, initial=0.0)]
    return tuple(end - begin for begin, end in pairwise(ends))


def _needs(stage: StageWork, tokens: Sequence[int], shares: Sequence[float] | None) -> list[Need]:
    """The needs of each member of a group whose ranks have `tokens`.

    A member computes the visits to its experts, and its own tokens in the shared expert. It reads the
    experts that it has, or fewer if there are fewer visits.
    """
    model, tp, members = stage.model, stage.tp, len(tokens)
    visits = sum(tokens) * model.top_k
    owned = model.experts // members
    needs: list[Need] = []
    for member, own in enumerate(tokens):
        if shares is None:
            flops, here = visits * expert_flops_per_visit(model) / (tp * members), visits / (tp * members)
        else:
            here = visits / tp * shares[member]
            flops = here * expert_flops_per_visit(model)
        read_bytes = min(owned, here) * expert_weight_bytes(model)
        if own:
            flops += own * shared_flops_per_token(model) / tp
            read_bytes += shared_weight_bytes(model)
        needs.append(Need(flops=flops, read_bytes=read_bytes))
    return needs


@lru_cache(maxsize=4096)
def member_shares(
    members: int, *, experts: int, top_k: int, skew: float, seed: int, layer: int
) -> tuple[float, ...]:
    """The share of all visits in a layer that goes to the experts of each of `members` ranks; the sum is 1.

    The popularity of experts follows Zipf's law with the exponent `skew`: the r-th most popular one is
    visited in proportion to `1 / r^skew`. Which one that is depends on `seed` and `layer` alone. A token
    visits an expert at most once, so no expert has more than `1 / top_k` of the visits. The excess goes to
    the other experts, in proportion. Member i has the i-th chunk of `experts / members` experts.
    """
    popularity = _at_most(1 / top_k, [1 / rank**skew for rank in range(1, experts + 1)])
    order = sorted(range(experts), key=lambda expert: _drawn(seed, layer, expert))
    of_expert = [0.0] * experts
    for expert, share in zip(order, popularity, strict=True):
        of_expert[expert] = share
    each = experts // members
    return tuple(sum(of_expert[i * each : (i + 1) * each]) for i in range(members))


def _drawn(seed: int, layer: int, expert: int) -> bytes:
    return blake2b(f"{seed}.{layer}.{expert}".encode(), digest_size=16).digest()


def _at_most(cap: float, weights: Sequence[float]) -> list[float]:
    """Shares in proportion to the descending `weights`, except that the first ones get at most `cap`."""
    left = 1.0
    for capped in range(len(weights)):
        rest = sum(weights[capped:])
        if weights[capped] * left <= cap * rest:
            return [cap] * capped + [weight * left / rest for weight in weights[capped:]]
        left -= cap
    return [1 / len(weights)] * len(weights)
