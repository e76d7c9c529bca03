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


class TokenIndex(msgspec.Struct, frozen=True, kw_only=True):
    """Sparse attention (DeepSeek-V3.2): `heads` heads of `dim` choose the `top_k` tokens to attend to.

    Each token has one index key, which is cached in `key_bytes` bytes.
    """

    heads: int
    dim: int
    top_k: int
    key_bytes: int


class Attention(msgspec.Struct, frozen=True, kw_only=True, tag="attention"):
    """The attention of a layer.

    - `head_dim`, `v_dim`: elements of a query or key, and of a value, in each head.
    - `latent`: if given, `kv_heads`, `head_dim` and `v_dim` do not determine the KV.
    - `window`: how many tokens back a token looks, itself included; None: all the way.
    - `shares_kv`: the layer uses the KV of an earlier layer. It keeps and sends none.
    - `output_gate`: a further projection as wide as the queries (Qwen3-Next).
    - `keys_are_values`: one projection makes keys and values. Both are cached (Gemma 4).
    """

    q_heads: int
    kv_heads: int
    head_dim: int
    v_dim: int
    latent: LatentAttention | None = None
    window: int | None = None
    index: TokenIndex | None = None
    shares_kv: bool = False
    output_gate: bool = False
    keys_are_values: bool = False


class Recurrent(msgspec.Struct, frozen=True, kw_only=True, tag="recurrent"):
    """A layer that keeps a state of fixed size for each request instead of KV: linear attention, Mamba.

    - `kind`: what the layer is called.
    - `heads`: what tensor parallelism divides.
    - `weights`: the number of weights of its projections.
    - `flops`: FLOPs per token besides the projections.
    - `state_bytes`: bytes of the state of a request.
    """

    kind: str
    heads: int
    weights: int
    flops: int
    state_bytes: int


Mixer = Attention | Recurrent
"""What mixes the tokens of a sequence in a layer."""


class OtherLayers(msgspec.Struct, frozen=True, kw_only=True):
    """Layers whose attention is not as the fields of `ModelShape` say, in ascending order."""

    layers: tuple[int, ...]
    mixer: Mixer


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a decoder that determine its bytes and FLOPs. A dense model has `experts == 0`.

    - `q_heads` to `output_gate`: the attention of all layers but `other_layers`. The fields mean what they
      mean in `Attention`; without `v_dim`, values are as wide as keys.
    - `ffn`: inner width of one routed expert, or of the MLP of a dense model.
    - `dense_layers`: the layers of a mixture of experts that have an MLP of width `dense_ffn` instead.
    - `bare_layers`: the layers that have no feed-forward (Nemotron-H).
    - `shared_ffn`: width of the shared expert, which every token passes in a sparse layer; 0: none.
    - `expert_hidden`: width of the hidden state that routed experts work on, if it is projected to a narrower
      one before the dispatch and back after the combine (Nemotron 3); 0: it is not.
    - `gated`: a feed-forward has three matrices of hidden x width, otherwise two.
    - `bytes_per_element`, `kv_element_bytes`, `weight_bytes`: bytes of an element of an activation, of an
      element of cached KV, and of a weight. `expert_bytes` is that of a weight of a routed expert, if it
      differs.
    - `notes`: what a reader of numbers should know, such as parts that are left out.
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
    v_dim: int | None = None
    dense_layers: tuple[int, ...] = ()
    dense_ffn: int = 0
    bare_layers: tuple[int, ...] = ()
    shared_ffn: int = 0
    expert_hidden: int = 0
    latent: LatentAttention | None = None
    window: int | None = None
    index: TokenIndex | None = None
    output_gate: bool = False
    other_layers: tuple[OtherLayers, ...] = ()
    gated: bool = True
    kv_element_bytes: float = 2.0
    weight_bytes: float = 2.0
    expert_bytes: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def attention(self) -> Attention:
        """The attention of all layers but `other_layers`."""
        head_dim, v_dim = self.head_dim, self.head_dim if self.v_dim is None else self.v_dim
        if self.latent is not None:
            head_dim, v_dim = self.latent.nope_dim + self.latent.rope_dim, self.latent.v_dim
        return Attention(
            q_heads=self.q_heads,
            kv_heads=self.kv_heads,
            head_dim=head_dim,
            v_dim=v_dim,
            latent=self.latent,
            window=self.window,
            index=self.index,
            output_gate=self.output_gate,
        )
