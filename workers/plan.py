"""What a rank is told to do: plain data, made once by the serving system, run on every fabric.

Sizes are model bytes, durations model seconds, times model nanoseconds. Ranks are global numbers.
"""

import enum
from itertools import chain

import msgspec

from controller.flow import Stage, coflow_of
from workers.rounds import Direct, DoubleTree, Ring, split, tree_chunks, tree_parts


class Transfer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message of `size_bytes` from rank `src` to rank `dst`: an S1 or an S3 flow.

    `downstream_ns` is what cannot begin before it has arrived (see `controller.flow.Flow`). `coflow` names
    a coflow that is not that of a batch; see `belongs_to`.
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
    coflow: str | None = None

    @property
    def belongs_to(self) -> str | None:
        """The coflow the transfer is of: the one it names, else that of its batch, layer and stage."""
        return coflow_of(self.batch, self.layer, self.stage) if self.coflow is None else self.coflow


class Compute(msgspec.Struct, frozen=True, kw_only=True, tag="compute"):
    """Work between two communication steps. `seconds[i]` and `flops[i]` belong to `BatchPlan.ranks[i]`."""

    label: str
    seconds: tuple[float, ...]
    flops: tuple[float, ...]


class CollectiveKind(enum.Enum):
    """What a collective does, and by which pattern of flows (`workers.rounds`).

    - `ALL_TO_ALL`: every member sends each other one its own part, all at once.
    - `ALL_REDUCE`: a ring. 2 (p - 1) rounds of 1/p of the vector to the next member.
    - `TREE_ALL_REDUCE`: two binary trees, half of the vector up and down each, in chunks.
    - `ALL_GATHER`: a ring. p - 1 rounds: first its own shard, then the one it was sent last.
    - `RING_ATTENTION`: the same with blocks of KV, while attention over the block at hand is computed
      (Liu, Zaharia and Abbeel, "Ring Attention with Blockwise Transformers", 2023).
    """

    ALL_TO_ALL = "all_to_all"
    ALL_REDUCE = "all_reduce"
    TREE_ALL_REDUCE = "tree_all_reduce"
    ALL_GATHER = "all_gather"
    RING_ATTENTION = "ring_attention"


class Collective(msgspec.Struct, frozen=True, kw_only=True, tag="collective"):
    """An S2 step of one process group.

    `group` names the process group; its p members are `Placement.groups[group]`. Of `sizes` it depends
    on the kind what they are:

    - all-to-all: p rows, `sizes[i][j]` is what member i sends to member j (the diagonal stays on the rank);
    - either all-reduce: `((n,),)`, the size of the vector that is reduced;
    - all-gather and ring attention: one row, `sizes[0][i]` is the shard or KV block of member i.

    `round_seconds` is for ring attention only: `round_seconds[i][r]` is the compute of member i over the
    block that it holds in round r, its own in round 0. There are p of them: the last block is computed over
    when nothing is left to send. A round takes the longer of its compute and its transfers.

    `downstream_ns` is the compute and the collectives of the batch that come after it, on idle links.
    """

    id: str
    group: str
    kind: CollectiveKind
    sizes: tuple[tuple[int, ...], ...]
    label: str
    round_seconds: tuple[tuple[float, ...], ...] = ()
    downstream_ns: int = 0

    def rounds(self, members: int) -> Direct | Ring | DoubleTree:
        """Who sends what when among `members`."""
        match self.kind:
            case CollectiveKind.ALL_TO_ALL:
                return Direct(members)
            case CollectiveKind.ALL_REDUCE:
                return Ring(members, reduces=True)
            case CollectiveKind.TREE_ALL_REDUCE:
                return DoubleTree(members, tree_chunks(self.sizes[0][0]))
            case CollectiveKind.ALL_GATHER | CollectiveKind.RING_ATTENTION:
                return Ring(members)

    def parts(self, members: int) -> tuple[int, ...]:
        """The sizes of the parts that `rounds` are about."""
        match self.kind:
            case CollectiveKind.ALL_TO_ALL:
                return tuple(chain.from_iterable(self.sizes))
            case CollectiveKind.ALL_REDUCE:
                return split(self.sizes[0][0], members)
            case CollectiveKind.TREE_ALL_REDUCE:
                return tree_parts(self.sizes[0][0], tree_chunks(self.sizes[0][0]))
            case CollectiveKind.ALL_GATHER | CollectiveKind.RING_ATTENTION:
                return self.sizes[0]

    def sent_by(self, index: int, members: int) -> dict[int, int]:
        """What member `index` of `members` sends to each other one in all rounds together."""
        rounds = self.rounds(members)
        if isinstance(rounds, Ring | DoubleTree):
            return rounds.totals(index, self.parts(members))
        return {peer: size for peer, size in enumerate(self.sizes[index]) if peer != index}


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
