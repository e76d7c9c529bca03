"""The kernels of a layer do all its work."""

from typing import Any

import msgspec
import pytest

from experiments.calibrate.layer_kernels import layer_kernels, narrowed
from testbed.models.known_models import MODELS
from testbed.models.shape import LatentAttention
from testbed.models.sizes import ffn_flops_per_token, layer_kinds, projection_flops_per_token, score_flops


@pytest.mark.parametrize("name", MODELS)
def test_the_kernels_of_a_layer_do_all_its_work(name: str) -> None:
    """100 tokens: projections, scores among these tokens, and experts with their gate or the MLP."""
    model = MODELS[name]
    flops = sum(kernel.times * kernel.flops for kernel in layer_kernels(model, 100))
    per_token = projection_flops_per_token(model, 0) + ffn_flops_per_token(model)
    assert flops == 100 * per_token + score_flops(model, 0, new_tokens=100, prefix_tokens=0)


@pytest.mark.parametrize(
    "changes",
    [{"v_dim": 64}, {"output_gate": True}, {"expert_hidden": 1024}, {"v_dim": 64, "output_gate": True}],
)
def test_so_do_those_of_a_layer_with_other_widths(changes: dict[str, Any]) -> None:
    model = msgspec.structs.replace(MODELS["mixtral-8x7b"], **changes)
    flops = sum(kernel.times * kernel.flops for kernel in layer_kernels(model, 100))
    per_token = projection_flops_per_token(model, 0) + ffn_flops_per_token(model)
    assert flops == 100 * per_token + score_flops(model, 0, new_tokens=100, prefix_tokens=0)


def test_a_feed_forward_without_a_gate_is_two_products() -> None:
    model = msgspec.structs.replace(MODELS["llama-3-8b"], gated=False)
    up, down = layer_kernels(model, 10)[-2:]
    assert (up.inner, up.columns, down.inner, down.columns) == (4096, 14336, 14336, 4096)


def test_mixtral_is_measured_by_these_products() -> None:
    """QKV together: (32 + 2 x 8) x 128 columns; the first two matrices of an expert together: 2 x 14336."""
    assert [(k.label, k.shape, k.times) for k in layer_kernels(MODELS["mixtral-8x7b"], 16)] == [
        ("qkv", "4096 x 6144", 1),
        ("scores", "32/8 heads of 128", 1),
        ("output", "4096 x 4096", 1),
        ("gate", "4096 x 8", 1),
        ("expert-up", "4096 x 28672", 2),
        ("expert-down", "14336 x 4096", 2),
    ]


def test_a_narrow_model_keeps_its_proportions() -> None:
    mixtral, deepseek = narrowed(MODELS["mixtral-8x7b"], 8), narrowed(MODELS["deepseek-v3"], 8)
    assert (mixtral.hidden, mixtral.q_heads, mixtral.kv_heads, mixtral.ffn) == (512, 4, 1, 1792)
    # Ranks 192 and 64, and 16 heads; the width of a head stays.
    assert deepseek.latent == LatentAttention(q_rank=192, kv_rank=64, nope_dim=128, rope_dim=64, v_dim=128)
    assert (deepseek.q_heads, deepseek.shared_ffn) == (16, 256)
    assert layer_kinds(deepseek) == layer_kinds(MODELS["deepseek-v3"])
