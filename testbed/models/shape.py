"""The sizes of a model that its bytes and FLOPs follow from."""

import msgspec


class LatentAttention(msgspec.Struct, frozen=True, kw_only=True):
    """Multi-head latent attention (DeepSeek-V2): K and V of all heads come from one latent per token.

    `q_rank` is the width of the queries' own latent, 0 without one. A head's queries and keys have `nope_dim`
    elements and `rope_dim` more with a position in them, its values `v_dim`.
    """

    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a decoder model that byte and FLOP counts follow from. `experts == 0`: dense.

    `ffn` is the inner width of one routed expert, or of the MLP of a dense model. In a mixture of experts the
    layers in `dense_layers` have an MLP of `dense_ffn` instead, and every token also passes an expert of
    `shared_ffn` (0: there is none). With `latent` set, `kv_heads` and `head_dim` say nothing about KV.
    `window` is how far back a token looks, None for all the way. A `gated` feed-forward has three matrices
    of hidden x width, one that is not has two. `bytes_per_element` is of activations, `kv_element_bytes` of
    cached KV, `weight_bytes` of a weight.
    """

    name: str
    layers: int
    hidden: int
    q_heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    experts: int
    top_k: int
    bytes_per_element: int
    dense_layers: tuple[int, ...] = ()
    dense_ffn: int = 0
    shared_ffn: int = 0
    latent: LatentAttention | None = None
    window: int | None = None
    gated: bool = True
    kv_element_bytes: float = 2.0
    weight_bytes: float = 2.0
