"""The kernels of one layer of a model: matrix products and attention scores. Pure."""

import msgspec

from testbed.models.shape import ModelShape
from testbed.models.sizes import is_moe


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel of a layer. `times` is how often the layer runs it on all `tokens`.

    A matrix product sets `inner` and `columns`; attention sets the fields from `heads` on instead.
    """

    label: str
    tokens: int
    times: int = 1
    inner: int = 0
    columns: int = 0
    heads: int = 0
    kv_heads: int = 0
    key_dim: int = 0
    value_dim: int = 0

    @property
    def flops(self) -> int:
        """FLOPs of one run. Causal attention counts only the keys that a token attends to."""
        if self.heads:
            return self.heads * (self.key_dim + self.value_dim) * self.tokens * (self.tokens + 1)
        return 2 * self.tokens * self.inner * self.columns

    @property
    def weights(self) -> int:
        return self.inner * self.columns

    @property
    def shape(self) -> str:
        if self.heads:
            return f"{self.heads}/{self.kv_heads} heads of {self.key_dim}"
        return f"{self.inner} x {self.columns}"


def attention_kernels(model: ModelShape, tokens: int) -> list[Kernel]:
    """Return the kernels of attention in one layer: its products and its scores.

    If layers differ, this is the attention that the fields of `model` state. What chooses tokens in sparse
    attention is left out.
    """

    def product(label: str, inner: int, columns: int) -> Kernel:
        return Kernel(label=label, tokens=tokens, inner=inner, columns=columns)

    heads, latent = model.q_heads, model.latent
    if latent is None:
        width, v_dim = model.head_dim, model.attention.v_dim
        gate = heads * v_dim if model.output_gate else 0
        return [
            product("qkv", model.hidden, (heads + model.kv_heads) * width + model.kv_heads * v_dim + gate),
            Kernel(
                label="scores",
                tokens=tokens,
                heads=heads,
                kv_heads=model.kv_heads,
                key_dim=width,
                value_dim=v_dim,
            ),
            product("output", heads * v_dim, model.hidden),
        ]
    key_dim = latent.nope_dim + latent.rope_dim
    queries = [product("q", model.hidden, heads * key_dim)]
    if latent.q_rank:
        queries = [
            product("q-down", model.hidden, latent.q_rank),
            product("q-up", latent.q_rank, heads * key_dim),
        ]
    return [
        *queries,
        product("kv-down", model.hidden, latent.kv_rank + latent.rope_dim),
        product("kv-up", latent.kv_rank, heads * (latent.nope_dim + latent.v_dim)),
        Kernel(
            label="scores",
            tokens=tokens,
            heads=heads,
            kv_heads=heads,
            key_dim=key_dim,
            value_dim=latent.v_dim,
        ),
        product("output", heads * latent.v_dim, model.hidden),
    ]


def layer_kernels(model: ModelShape, tokens: int) -> list[Kernel]:
    """Return all kernels of one layer: for a mixture of experts a sparse one, where every token visits
    `top_k` experts."""
    kernels = attention_kernels(model, tokens)
    if not is_moe(model):
        return kernels + _feed_forward("mlp", model, model.ffn, tokens)
    kernels.append(Kernel(label="gate", tokens=tokens, inner=model.hidden, columns=model.experts))
    expert_hidden = model.expert_hidden or model.hidden
    if model.expert_hidden:
        kernels += [
            Kernel(label="narrow", tokens=tokens, inner=model.hidden, columns=expert_hidden),
            Kernel(label="widen", tokens=tokens, inner=expert_hidden, columns=model.hidden),
        ]
    kernels += _feed_forward("expert", model, model.ffn, tokens, times=model.top_k, hidden=expert_hidden)
    if model.shared_ffn:
        kernels += _feed_forward("shared", model, model.shared_ffn, tokens)
    return kernels


def narrowed(model: ModelShape, share: int) -> ModelShape:
    """Return the model with its widths and its numbers of heads divided by `share`."""

    def part(size: int) -> int:
        return max(1, size // share)

    latent = model.latent
    if latent is not None:
        latent = msgspec.structs.replace(latent, q_rank=latent.q_rank // share, kv_rank=part(latent.kv_rank))
    return msgspec.structs.replace(
        model,
        hidden=part(model.hidden),
        q_heads=part(model.kv_heads) * (model.q_heads // model.kv_heads),
        kv_heads=part(model.kv_heads),
        ffn=part(model.ffn),
        dense_ffn=model.dense_ffn // share,
        shared_ffn=model.shared_ffn // share,
        expert_hidden=model.expert_hidden // share,
        latent=latent,
        index=None,
        other_layers=(),
    )


def _feed_forward(
    label: str, model: ModelShape, width: int, tokens: int, times: int = 1, hidden: int = 0
) -> list[Kernel]:
    """With a gate, the first two products are one kernel. `hidden` is 0 for the model's own."""
    hidden = hidden or model.hidden
    up = (2 if model.gated else 1) * width
    return [
        Kernel(label=f"{label}-up", tokens=tokens, times=times, inner=hidden, columns=up),
        Kernel(label=f"{label}-down", tokens=tokens, times=times, inner=width, columns=hidden),
    ]
