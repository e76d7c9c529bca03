"""KV between ranks: what goes from a replica to another one (S1) or to a decode worker (S3), in one layer.

KV is sharded by sequence part and head. The tokens are dealt out to the parts of a sequence in turn. Ranks
are counted within their side: part by part at a replica, and by their share of the heads in a part.

Layers may differ in their heads, so each function has the mixer of the layer. A layer with a state sends that
instead of KV, and has no sequence parts.
"""

from functools import cache
from math import gcd, lcm

from testbed.job import UnitShape
from testbed.models.mixers import copies, kept_bytes, state_bytes
from testbed.models.shape import Mixer, ModelShape
from testbed.serving.plans.resharding import Piece, pairs, resharded, share_of_sender


def fetched(
    tokens: int, src: UnitShape, dst: UnitShape, model: ModelShape, mixer: Mixer
) -> tuple[Piece, ...]:
    """What the ranks of a replica of a unit like `src` send those of one like `dst`: KV of `tokens`.

    A token's KV crosses the network once: ranks with copies of a head, or of the latent of MLA, each send
    or receive a share of it.
    """
    token_bytes = kept_bytes(model, mixer)
    return tuple(
        Piece(src=a * src.tp + piece.src, dst=b * dst.tp + piece.dst, size=piece.size)
        for a, b, shared in _shared_tokens(tokens, src.sp, dst.sp)
        for piece in resharded(shared * token_bytes, src.tp, dst.tp)
    )


def delivered(
    tokens: int, src: UnitShape, decode_tp: int, model: ModelShape, mixer: Mixer
) -> tuple[Piece, ...]:
    """What the ranks of a replica of a unit like `src` send those of a decode worker: KV of `tokens`.

    Every decode rank gets all KV that it keeps, so every copy of a head crosses the network.
    """
    token_bytes = kept_bytes(model, mixer) * copies(mixer, decode_tp)
    return tuple(
        Piece(src=a * src.tp + piece.src, dst=piece.dst, size=piece.size)
        for a, _, shared in _shared_tokens(tokens, src.sp, 1)
        for piece in resharded(shared * token_bytes, src.tp, decode_tp)
    )


def state_pieces(src_tp: int, dst_tp: int, mixer: Mixer) -> tuple[Piece, ...]:
    """What `src_tp` ranks of a replica send `dst_tp` ranks of another, or of a decode worker: a state.

    Both sides divide its heads, and no rank has a copy.
    """
    return resharded(state_bytes(mixer), src_tp, dst_tp)


@cache
def ways(src: UnitShape, dst: UnitShape) -> tuple[tuple[int, int, float], ...]:
    """All (sender, receiver, share of the sender's bytes) over all layers of a request, for estimates.

    Ranks are counted in their replica, stage by stage. Layers and tokens count as evenly divided.
    """
    return tuple(
        (
            (src_stage * src.sp + a) * src.tp + src_head,
            (dst_stage * dst.sp + b) * dst.tp + dst_head,
            share_of_sender(src_stage, dst_stage, src.pp, dst.pp)
            * (gcd(src.sp, dst.sp) / dst.sp)
            * share_of_sender(src_head, dst_head, src.tp, dst.tp),
        )
        for src_stage, dst_stage in pairs(src.pp, dst.pp)
        for a, b in _meeting(src.sp, dst.sp)
        for src_head, dst_head in pairs(src.tp, dst.tp)
    )


def _shared_tokens(tokens: int, parts: int, others: int) -> list[tuple[int, int, int]]:
    """For each part of one side and of the other, how many of `tokens` are in both, if any can be.

    Token t is in part t mod `parts` of one side, and in part t mod `others` of the other.
    """
    return [
        (a, b, len(range(first, tokens, lcm(parts, others))))
        for (a, b), first in _meeting(parts, others).items()
    ]


@cache
def _meeting(parts: int, others: int) -> dict[tuple[int, int], int]:
    """The first token that is in both, for each part of one side and of the other that share any."""
    both = ((token % parts, token % others, token) for token in range(lcm(parts, others)))
    return {(a, b): token for a, b, token in sorted(both)}
