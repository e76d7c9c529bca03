"""Kernels with the shapes of a layer."""

import msgspec
import torch
from worker_groups import CPU

from workers.layer_kernels import LayerKernels, small
from workers.layer_sizes import LayerSizes

SIZES = LayerSizes(hidden=32, q_heads=4, kv_heads=2, head_dim=8, v_dim=6, ffn=48, gated=True, context=20)
LARGE = LayerSizes(
    hidden=8192, q_heads=64, kv_heads=8, head_dim=128, v_dim=128, ffn=28672, gated=True, context=4096
)


def test_attention_is_that_of_the_layer() -> None:
    """Two query heads share a KV head. The result is worked out by hand, head by head."""
    layer = LayerKernels(SIZES, CPU)
    queries = (layer._hidden @ layer._qkv)[:, : 4 * 8].view(-1, 4, 8)
    heads = []
    for head in range(4):
        scores = queries[:, head] @ layer._keys[0, head // 2].T / 8**0.5
        heads.append(scores.softmax(-1) @ layer._values[0, head // 2])
    expected = torch.cat(heads, dim=1) @ layer._output
    assert layer._qkv.shape == (32, 4 * 8 + 2 * 8 + 2 * 6)
    torch.testing.assert_close(layer.attention(), expected)


def test_a_feed_forward_has_three_matrices_or_two() -> None:
    layer = LayerKernels(SIZES, CPU)
    gate, up = layer._hidden @ layer._gate, layer._hidden @ layer._up  # type: ignore[operator]
    torch.testing.assert_close(layer.feed_forward(), (torch.nn.functional.silu(gate) * up) @ layer._down)
    plain = LayerKernels(msgspec.structs.replace(SIZES, gated=False), CPU)
    assert plain._gate is None
    assert plain.feed_forward().shape == (plain.rows, 32)


def test_a_layer_is_halved_on_a_cpu_until_it_is_small() -> None:
    """Halved five times: 256 x (2 heads x 256 + 1 x 256 + 3 x 896) = 884,736 weights."""
    assert small(LARGE) == LayerSizes(
        hidden=256, q_heads=2, kv_heads=1, head_dim=128, v_dim=128, ffn=896, gated=True, context=256
    )
    assert small(SIZES) == SIZES
