"""What a rank is told to do: plain data, made once by the serving system, run on every fabric.

Sizes are model bytes, durations model seconds, times model nanoseconds. Ranks are global numbers.
"""

import enum
from itertools import chain

import msgspec

from controller.flow import ALL_PEERS, Stage, Transfer
from workers.rounds import Direct, DoubleTree, Ring, split, tree_chunks, tree_parts


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

    def share(self, index: int, rank: int, size_bytes: int, *, batch: str, layer: int) -> Transfer:
        """The flow of member `index`, which is `rank`: all that it sends to its peers in all rounds."""
        return self._flow(f"{self.id}.{index}", rank, size_bytes, batch, layer)

    def whole(self, rank: int, size_bytes: int, *, batch: str, layer: int) -> Transfer:
        """All shares as one flow, told as one of `rank`."""
        return self._flow(self.id, rank, size_bytes, batch, layer)

    def _flow(self, id: str, rank: int, size_bytes: int, batch: str, layer: int) -> Transfer:
        return Transfer(
            id=id,
            stage=Stage.COLLECTIVE,
            src=rank,
            dst=ALL_PEERS,
            size_bytes=size_bytes,
            batch=batch,
            layer=layer,
            coflow=self.id,
            downstream_ns=self.downstream_ns,
        )


Step = Compute | Collective


class LayerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: wait for `wait` and `under_way` (S1), do `steps` in order, then post `post` (S3) without
    waiting. Who holds what is in `wait` sends it for this plan; `under_way` belongs to a `FetchPlan`.
    """

    index: int
    wait: tuple[Transfer, ...]
    steps: tuple[Step, ...]
    post: tuple[Transfer, ...]
    under_way: tuple[Transfer, ...] = ()


class RequestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Where one request of a batch runs, and what its first token waits for.

    `replica` holds the ranks that keep its KV (one attention replica, i.e. one tensor-parallel
    group). The first token is out `decode_step_s` after the last of `p2d_flows` transfers arrived, those of
    earlier batches with a part of the prompt among them. `last` is False for such an earlier part.
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
    last: bool = True


class FetchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Reused KV that is sent for before its request is in a batch.

    To the scheduler it is a batch of its own, of which nothing is computed: it waits for layer 0 until the
    batch of its request names it in `fetches`, and is at that batch's layer from then on. `layers[l]` are the
    S1 transfers of layer l, `ranks` the replica that they go to.
    """

    id: str
    unit: str
    request: int
    ranks: tuple[int, ...]
    layers: tuple[tuple[Transfer, ...], ...]
    deadline_ns: int


class BatchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the ranks of one prefill unit, its victims and decode workers do for one batch.

    `fetches` are the `FetchPlan`s whose flows it waits for. S1 of a layer is sent for when the slowest
    rank is at most `fetch_ahead` layers before it, None: all at once. With `pause_every` the ranks stop
    after every so many layers until they are told to go on.
    """

    id: str
    unit: str
    ranks: tuple[int, ...]
    requests: tuple[RequestPlan, ...]
    layers: tuple[LayerPlan, ...]
    compute_s: float
    formed_ns: int
    fetches: tuple[str, ...] = ()
    fetch_ahead: int | None = None
    pause_every: int | None = None

    def pauses_before(self, layer: int) -> bool:
        """Whether the ranks stop before `layer` until they are told to go on."""
        return self.pause_every is not None and layer > 0 and layer % self.pause_every == 0


class Resume(msgspec.Struct, frozen=True, kw_only=True, tag="resume"):
    """The ranks of `batch`, which have paused, go on with it."""

    batch: str
