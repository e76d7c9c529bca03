"""Which KV a transfer carries: the tokens and heads that both of its ends have. Pure."""

from collections.abc import Iterator
from math import lcm
from typing import NamedTuple

from controller.flow import Stage, Transfer
from workers.model.setup import ELEMENT_BYTES, RealModel, Shard, WrongSize
from workers.plan import BatchPlan, RequestPlan


class KvPiece(NamedTuple):
    """The KV of `request` in `layer`: of the tokens at `places` in its prompt, and of the `heads`."""

    request: int
    layer: int
    places: tuple[range, ...]
    heads: range

    @property
    def tokens(self) -> int:
        return sum(map(len, self.places))


def pieces_of(plan: BatchPlan, rank: int, model: RealModel) -> Iterator[tuple[Transfer, KvPiece]]:
    """The transfers of `plan` that `rank` sends or receives, each with what it carries.

    Raises `WrongSize` if the plan gives a transfer another size than that.
    """
    requests = {request.request: request for request in plan.requests}
    for layer in plan.layers:
        for transfer in (*layer.wait, *layer.post):
            if rank in (transfer.src, transfer.dst) and transfer.request is not None:
                yield transfer, piece_of(transfer, requests[transfer.request], model)


def piece_of(transfer: Transfer, request: RequestPlan, model: RealModel) -> KvPiece:
    """What an S1 or S3 transfer of `request` carries. Raises `WrongSize` as `pieces_of` does."""
    assert transfer.layer is not None
    if transfer.stage is Stage.KV_REUSE:
        spans = next(fetch.spans for fetch in request.fetched if transfer.src in fetch.ranks)
    else:
        end = request.local_tokens + request.remote_tokens + request.new_tokens
        spans = ((request.earlier_tokens, end),)
    src, dst = model.shards[transfer.src], model.shards[transfer.dst]
    heads = [shard.share(model.decoder.kv_heads) for shard in (src, dst)]
    both = range(max(own.start for own in heads), min(own.stop for own in heads))
    places = tuple(_in_both(src, dst, begin, end) for begin, end in spans)
    piece = KvPiece(request.request, transfer.layer, places, both)
    size = 2 * piece.tokens * len(both) * model.decoder.head_dim * ELEMENT_BYTES
    if size != transfer.size_bytes:
        raise WrongSize(
            f"{transfer.id} is planned with {transfer.size_bytes} B; its KV of {piece.tokens} tokens and"
            f" {len(both)} heads has {size} B"
        )
    return piece


def _in_both(one: Shard, other: Shard, begin: int, end: int) -> range:
    """The places from `begin` to `end` that are in the part of a prompt of both ranks."""
    mine = one.places(begin, end)
    common = [place for place in mine[: other.parts] if place % other.parts == other.part]
    return range(common[0], end, lcm(one.parts, other.parts)) if common else range(0)
