"""The sizes of a model that determine its bytes and FLOPs."""

import msgspec


class LatentAttention(msgspec.Struct, frozen=True, kw_only=True):
    """Multi-head latent attention (DeepSeek-V2): K and V of all heads come from one latent per token.

    `kv_rank` is the width of that latent. `q_rank` is the width of a latent for the queries, 0 if there is
    none. In each head, queries and keys have `nope_dim` elements without and `rope_dim` elements with a
    position, and values have `v_dim` elements.
    """

    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a decoder that determine its bytes and FLOPs. A dense model has `experts == 0`.

    - `ffn`: inner width of one routed expert, or of the MLP of a dense model.
    - `dense_layers`: the layers of a mixture of experts that have an MLP of width `dense_ffn` instead.
    - `shared_ffn`: width of the shared expert, which every token passes in a sparse layer; 0: none.
    - `latent`: if given, `kv_heads` and `head_dim` do not determine the KV.
    - `window`: how many tokens back a token looks, itself included; None: all the way.
    - `gated`: a feed-forward has three matrices of hidden x width, otherwise two.
    - `bytes_per_element`, `kv_element_bytes`, `weight_bytes`: bytes of an element of an activation, of an
      element of cached KV, and of a weight.
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
