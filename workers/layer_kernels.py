"""Kernels with the shapes of a layer: attention, and a feed-forward. Their numbers mean nothing."""

import msgspec
import torch
from torch.nn.functional import scaled_dot_product_attention, silu

from workers.layer_sizes import LayerSizes
from workers.streams import settle

_ROWS = {"cpu": 16, "cuda": 1024}
"""Tokens that one run of the kernels computes."""

_MOST_CPU_WEIGHTS = 1_000_000
_MOST_CPU_CONTEXT = 256


class LayerKernels:
    """The matrices of a layer on `device`, and kernels that use them, each for as many tokens as `rows`.

    On a GPU, sizes are those of the layer. On a CPU, a layer is halved in all its widths until it has at most
    a million weights: otherwise one run of its kernels would take longer than most layers are planned to.
    """

    def __init__(self, sizes: LayerSizes, device: torch.device) -> None:
        on_cpu = device.type == "cpu"
        self.sizes = small(sizes) if on_cpu else sizes
        self.rows = _ROWS["cpu" if on_cpu else "cuda"]
        self._device = device
        self._dtype = torch.float32 if on_cpu else torch.bfloat16
        s = self.sizes
        self._split = s.q_heads * s.head_dim, s.kv_heads * s.head_dim, s.kv_heads * s.v_dim
        self._hidden = self._random(self.rows, s.hidden)
        self._qkv = self._random(s.hidden, sum(self._split))
        self._output = self._random(s.q_heads * s.v_dim, s.hidden)
        self._keys = self._random(1, s.kv_heads, s.context, s.head_dim)
        self._values = self._random(1, s.kv_heads, s.context, s.v_dim)
        self._up = self._random(s.hidden, s.ffn)
        self._gate = self._random(s.hidden, s.ffn) if s.gated else None
        self._down = self._random(s.ffn, s.hidden)
        settle(device)  # the kernels run on another stream

    def attention(self) -> torch.Tensor:
        """The projections of `rows` tokens, and attention to `context` tokens."""
        s = self.sizes
        with torch.inference_mode():
            queries = torch.mm(self._hidden, self._qkv).split(self._split, dim=1)[0]
            attended = scaled_dot_product_attention(
                queries.unflatten(1, (s.q_heads, s.head_dim)).transpose(0, 1)[None],
                self._keys,
                self._values,
                enable_gqa=s.q_heads != s.kv_heads,
            )
            return torch.mm(attended[0].transpose(0, 1).flatten(1), self._output)

    def feed_forward(self) -> torch.Tensor:
        """The feed-forward of `rows` tokens."""
        with torch.inference_mode():
            wide = torch.mm(self._hidden, self._up)
            wide = silu(wide) if self._gate is None else silu(torch.mm(self._hidden, self._gate)).mul_(wide)
            return torch.mm(wide, self._down)

    def _random(self, *shape: int) -> torch.Tensor:
        # Zeros would draw less power than real activations, and so run faster.
        return torch.randn(shape, dtype=self._dtype, device=self._device) / shape[-1] ** 0.5


def small(sizes: LayerSizes) -> LayerSizes:
    """The sizes of a layer of these proportions that a CPU computes in milliseconds."""
    sizes = msgspec.structs.replace(sizes, context=min(sizes.context, _MOST_CPU_CONTEXT))
    while _weights(sizes) > _MOST_CPU_WEIGHTS:
        kv_heads = max(1, sizes.kv_heads // 2)
        per_kv_head = sizes.q_heads // sizes.kv_heads
        sizes = msgspec.structs.replace(
            sizes,
            hidden=max(1, sizes.hidden // 2),
            kv_heads=kv_heads,
            q_heads=kv_heads * (per_kv_head if kv_heads < sizes.kv_heads else max(1, per_kv_head // 2)),
            ffn=max(1, sizes.ffn // 2),
        )
    return sizes


def _weights(sizes: LayerSizes) -> int:
    attention = sizes.q_heads * (sizes.head_dim + sizes.v_dim) + sizes.kv_heads * (
        sizes.head_dim + sizes.v_dim
    )
    return sizes.hidden * (attention + (3 if sizes.gated else 2) * sizes.ffn)
