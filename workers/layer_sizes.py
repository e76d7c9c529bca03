"""The sizes of a layer on one rank, for kernels that are shaped like it. Plain data; imports no torch."""

import msgspec


class LayerSizes(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank has of a layer: its share of the heads, and of the width `ffn` of a feed-forward.

    With experts, `ffn` is the width of one. `context` is how many tokens a token attends to. Keys and queries
    are `head_dim` wide, values `v_dim`. A `gated` feed-forward has three matrices, otherwise two.
    """

    hidden: int
    q_heads: int
    kv_heads: int
    head_dim: int
    v_dim: int
    ffn: int
    gated: bool
    context: int
