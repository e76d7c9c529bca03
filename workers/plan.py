"""What ranks do: plain data, made once by the serving system, and the same on every fabric.

Sizes are model bytes, `*_s` and `*seconds` are model seconds, `*_ns` model nanoseconds. Ranks are global.
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
    """What a collective of p members does, and with which messages (`workers.rounds`).

    - `ALL_TO_ALL`: every member sends a part to every other member, all at once.
    - `ALL_REDUCE`: a ring. In each of 2 (p - 1) rounds, a member sends 1/p of the vector to the next.
    - `TREE_ALL_REDUCE`: two binary trees. Half of the vector goes up and down each, in chunks.
    - `ALL_GATHER`: a ring. In p - 1 rounds, a member sends its own shard, then the one it received last.
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

    `group` names the process group; its p members are `Placement.groups[group]`. The meaning of `sizes`
    depends on the kind:

    - all-to-all: p rows, `sizes[i][j]` is what member i sends to member j (the diagonal stays on the rank);
    - both all-reduces: `((n,),)`, the size of the vector that is reduced;
    - all-gather and ring attention: one row, `sizes[0][i]` is the shard or KV block of member i.

    `round_seconds` is for ring attention only: `round_seconds[i][r]` is the compute of member i over the
    block that it holds in round r, its own in round 0. There are p such rounds, and nothing is sent in the
    last. A round takes as long as its compute or its transfers, whichever is longer.

    `downstream_ns` is the time on idle links of the batch's later compute and collectives.
    """

    id: str
    group: str
    kind: CollectiveKind
    sizes: tuple[tuple[int, ...], ...]
    label: str
    round_seconds: tuple[tuple[float, ...], ...] = ()
    downstream_ns: int = 0

    def rounds(self, members: int) -> Direct | Ring | DoubleTree:
        """The rounds of the collective among `members`."""
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
        """The sizes of the parts that `rounds` moves."""
        match self.kind:
            case CollectiveKind.ALL_TO_ALL:
                return tuple(chain.from_iterable(self.sizes))
            case CollectiveKind.ALL_REDUCE:
                return split(self.sizes[0][0], members)
            case CollectiveKind.TREE_ALL_REDUCE:
                return tree_parts(self.sizes[0][0], tree_chunks(self.sizes[0][0]))
            case CollectiveKind.ALL_GATHER | CollectiveKind.RING_ATTENTION:
                return self.sizes[0]

    def sent(self, members: int) -> list[dict[int, int]]:
        """For each of `members`, what `sent_by` returns."""
        rounds = self.rounds(members)
        if isinstance(rounds, Direct):
            return [self._dealt_by(index) for index in range(members)]
        parts = self.parts(members)
        return [rounds.totals(index, parts) for index in range(members)]

    def sent_by(self, index: int, members: int) -> dict[int, int]:
        """Bytes that member `index` of `members` sends to each other member in all rounds, by its index."""
        rounds = self.rounds(members)
        if isinstance(rounds, Direct):
            return self._dealt_by(index)
        return rounds.totals(index, self.parts(members))

    def _dealt_by(self, index: int) -> dict[int, int]:
        return {peer: size for peer, size in enumerate(self.sizes[index]) if peer != index}

    def share(self, index: int, rank: int, size_bytes: int, *, batch: str, layer: int) -> Transfer:
        """The flow of member `index`, which is `rank`: all that it sends to its peers in all rounds."""
        return self._flow(f"{self.id}.{index}", rank, size_bytes, batch, layer)

    def whole(self, rank: int, size_bytes: int, *, batch: str, layer: int) -> Transfer:
        """All shares as one flow, with `rank` as its source."""
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
    """One layer: wait for `wait` and `under_way` (S1), do `steps` in order, then post `post` (S3).

    Holders send `wait` for this plan; the transfers in `under_way` belong to a `FetchPlan`. Nothing waits
    for `post`.
    """

    index: int
    wait: tuple[Transfer, ...]
    steps: tuple[Step, ...]
    post: tuple[Transfer, ...]
    under_way: tuple[Transfer, ...] = ()


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """Reused tokens that come from the replica of `ranks` (S1): those in `spans`, each (begin, end)."""

    ranks: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


class RequestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Where one request of a batch runs, and what its first token waits for.

    `replica` are the ranks that keep its KV, and `decode_ranks` those of its decode worker. The first token
    comes `decode_step_s` after all its KV has arrived, which is `p2d_flows[i]` S3 transfers at
    `decode_ranks[i]`. They include those of earlier batches with a part of the prompt.
    `last` is False for such an earlier part. `new_tokens` are computed, `local_tokens` are reused from the
    replica's own cache, and `remote_tokens` are fetched. `earlier_tokens` of the local ones are from earlier
    parts of the prompt. `fetched` says where the batch's S1 comes from. `recomputed_tokens` and the two
    estimates are as in `testbed.record.RequestRow`.
    """

    request: int
    replica: tuple[int, ...]
    decode_ranks: tuple[int, ...]
    new_tokens: int
    local_tokens: int
    remote_tokens: int
    p2d_flows: tuple[int, ...]
    decode_step_s: float
    deadline_ns: int
    last: bool = True
    recomputed_tokens: int = 0
    fetch_estimate_ns: int | None = None
    recompute_estimate_ns: int | None = None
    earlier_tokens: int = 0
    fetched: tuple[Fetched, ...] = ()

    @property
    def decode_rank(self) -> int:
        """The first rank of the decode worker, by which results name it."""
        return self.decode_ranks[0]


class FetchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Reused KV whose fetch starts before its request is in a batch.

    To the scheduler it is a batch of its own. It is at layer 0 until the request's batch names it in
    `fetches`; from then on it is at the layer of that batch. `layers[l]` are the S1 transfers of layer l,
    and `ranks` is the replica that they go to.
    """

    id: str
    unit: str
    request: int
    ranks: tuple[int, ...]
    layers: tuple[tuple[Transfer, ...], ...]
    deadline_ns: int


class BatchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the ranks of one prefill unit, its victims and decode workers do for one batch.

    `fetches` are the ids of the `FetchPlan`s whose flows it waits for. S1 of a layer is fetched when the
    slowest rank is at most `fetch_ahead` layers before it; None: all S1 is fetched at once. With
    `pause_every`, the ranks stop after every `pause_every` layers until `Resume`.
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

    @property
    def announced(self) -> tuple[str, ...]:
        """What the scheduler knows of it: the batch, and its fetch plans, which are at the same layer."""
        return self.id, *self.fetches

    def pauses_before(self, layer: int) -> bool:
        """Whether the ranks stop before `layer` until `Resume`."""
        return self.pause_every is not None and layer > 0 and layer % self.pause_every == 0


class Resume(msgspec.Struct, frozen=True, kw_only=True, tag="resume"):
    """The ranks of `batch`, which have paused, continue with it."""

    batch: str
