"""What a rank is told to do: plain data, made once by the serving system, run on every fabric.

Sizes are model bytes, durations model seconds, times model nanoseconds. Ranks are global numbers.
"""

import enum

import msgspec

from controller.flow import Stage


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """One message of `size_bytes` from rank `src` to rank `dst`: an S1 or an S3 flow.

    `downstream_ns` is what cannot begin before it has arrived (see `controller.flow.Flow`).
    """

    id: str
    stage: Stage
    src: int
    dst: int
    size_bytes: int
    batch: str | None = None
    request: int | None = None
    layer: int | None = None
    deadline_ns: int | None = None
    downstream_ns: int = 0


class Compute(msgspec.Struct, frozen=True, kw_only=True, tag="compute"):
    """Work between two communication steps. `seconds[i]` and `flops[i]` belong to `BatchPlan.ranks[i]`."""

    label: str
    seconds: tuple[float, ...]
    flops: tuple[float, ...]


class CollectiveKind(enum.Enum):
    ALL_TO_ALL = "all_to_all"
    ALL_REDUCE = "all_reduce"


class Collective(msgspec.Struct, frozen=True, kw_only=True, tag="collective"):
    """An S2 step of one process group.

    `group` names the process group; its members are `Placement.groups[group]`. For an all-to-all,
    `sizes[i][j]` is what member i sends to member j (the diagonal stays on the rank); for an
    all-reduce `sizes` is `((n,),)`, the size of the vector that is reduced. `downstream_ns` is the
    compute and the collectives of the batch that come after it, on idle links.
    """

    id: str
    group: str
    kind: CollectiveKind
    sizes: tuple[tuple[int, ...], ...]
    label: str
    downstream_ns: int = 0

    def sent_by(self, index: int, members: int) -> dict[int, int]:
        """What member `index` of `members` sends to each other one; an all-reduce is a ring,
        2 (p - 1) / p of the vector to the next."""
        if self.kind is CollectiveKind.ALL_TO_ALL:
            return {peer: size for peer, size in enumerate(self.sizes[index]) if peer != index}
        if members == 1:
            return {}
        return {(index + 1) % members: round(self.sizes[0][0] * 2 * (members - 1) / members)}


Step = Compute | Collective


class LayerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: wait for `wait` (S1), do `steps` in order, then post `post` (S3) without waiting."""

    index: int
    wait: tuple[Transfer, ...]
    steps: tuple[Step, ...]
    post: tuple[Transfer, ...]


class RequestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Where one request of a batch runs, and what its first token waits for.

    `replica` holds the ranks that keep its KV (one attention replica, i.e. one tensor-parallel
    group). The first token is out `decode_step_s` after the last of `p2d_flows` transfers arrived.
    """

    request: int
    replica: tuple[int, ...]
    decode_rank: int
    new_tokens: int
    local_tokens: int
    remote_tokens: int
    p2d_flows: int
    decode_step_s: float
    deadline_ns: int


class BatchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the ranks of one prefill unit, its victims and decode workers do for one batch."""

    id: str
    unit: str
    ranks: tuple[int, ...]
    requests: tuple[RequestPlan, ...]
    layers: tuple[LayerPlan, ...]
    compute_s: float
    formed_ns: int
