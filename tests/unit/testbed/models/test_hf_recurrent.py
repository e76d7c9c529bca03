"""Models in which some layers keep a state of fixed size instead of KV, or attend to images."""

from typing import Any

import pytest
from config_files import LLAMA

from testbed.models.hf_config import ConfigError, shape_from_config
from testbed.models.mixers import mixer_of
from testbed.models.shape import ModelShape, Recurrent
from testbed.models.sizes import (
    active_parameters,
    kv_bytes_per_token,
    kv_bytes_per_token_layer,
    state_bytes_per_request,
    total_parameters,
)

QWEN3_NEXT: dict[str, Any] = {
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "model_type": "qwen3_next",
    "moe_intermediate_size": 512,
    "num_attention_heads": 16,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "num_hidden_layers": 48,
    "num_key_value_heads": 2,
    "shared_expert_intermediate_size": 512,
}
JAMBA: dict[str, Any] = {
    "attn_layer_offset": 4,
    "attn_layer_period": 8,
    "expert_layer_offset": 1,
    "expert_layer_period": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "mamba_d_conv": 4,
    "mamba_d_state": 16,
    "mamba_dt_rank": 256,
    "mamba_expand": 2,
    "model_type": "jamba",
    "num_attention_heads": 32,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
}
KIMI_LINEAR: dict[str, Any] = {
    "first_k_dense_replace": 1,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "kv_lora_rank": 512,
    "linear_attn_config": {
        "full_attn_layers": [4, 8, 12, 16, 20, 24, 27],
        "head_dim": 128,
        "kda_layers": [n for n in range(1, 27) if n % 4],
        "num_heads": 32,
        "short_conv_kernel_size": 4,
    },
    "model_type": "kimi_linear",
    "moe_intermediate_size": 1024,
    "num_attention_heads": 32,
    "num_experts": 256,
    "num_experts_per_token": 8,
    "num_hidden_layers": 27,
    "num_shared_experts": 1,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
GRANITE_4: dict[str, Any] = LLAMA | {
    "layer_types": ["mamba"] * 5 + ["attention"] + ["mamba"] * 2,
    "mamba_d_conv": 4,
    "mamba_d_head": 64,
    "mamba_d_state": 128,
    "mamba_expand": 2,
    "mamba_n_groups": 1,
    "mamba_n_heads": 128,
    "model_type": "granitemoehybrid",
}
LFM2: dict[str, Any] = LLAMA | {
    "conv_L_cache": 3,
    "full_attn_idxs": [2, 5],
    "hidden_size": 2048,
    "model_type": "lfm2",
}


NEMOTRON_H: dict[str, Any] = LLAMA | {
    "conv_kernel": 4,
    "expand": 2,
    "hidden_act": None,
    "hybrid_override_pattern": "M-M*-M-",
    "mamba_head_dim": 64,
    "mamba_num_heads": 64,
    "mlp_hidden_act": "relu2",
    "model_type": "nemotron_h",
    "head_dim": 128,
    "n_groups": 8,
    "num_hidden_layers": 7,
    "ssm_state_size": 128,
}


def read(config: dict[str, Any], **keys: Any) -> ModelShape:
    return shape_from_config(config | keys, "m")


def with_kv(shape: ModelShape) -> list[int]:
    return [layer for layer in range(shape.layers) if kv_bytes_per_token_layer(shape, layer)]


def test_linear_attention_keeps_a_state() -> None:
    """36 of 48 layers: 32 x 128 x 128 elements of 4 B, and the last 3 of (2 x 2048 + 4096) inputs of 2 B.

    Published: 80 billion parameters; 2 x 151_936 x 2048 of them are embeddings.
    """
    shape = read(QWEN3_NEXT)
    assert with_kv(shape) == list(range(3, 48, 4))
    assert kv_bytes_per_token(shape) == 12 * 2 * 2 * 256 * 2
    assert state_bytes_per_request(shape) == 36 * (2_097_152 + 49_152)
    assert (total_parameters(shape) + 2 * 151_936 * 2048) / 1e9 == pytest.approx(80, rel=0.01)
    assert shape.notes == (
        "36 layers with linear attention keep a recurrent state of 2,146,304 B per request instead of KV; a "
        "state is assumed to be cached at the end of every block",
    )


def test_a_state_may_have_sixteen_bits() -> None:
    assert state_bytes_per_request(read(QWEN3_NEXT, mamba_ssm_dtype="bfloat16")) == 36 * (1_048_576 + 49_152)


def test_mamba_beside_attention() -> None:
    """4 of 32 layers have KV. The others: 8192 x 16 elements of 4 B, 3 x 8192 of 2 B. Published: 52e9."""
    shape = read(JAMBA)
    assert with_kv(shape) == [4, 12, 20, 28]
    assert state_bytes_per_request(shape) == 28 * (524_288 + 49_152)
    assert (total_parameters(shape) + 2 * 65_536 * 4096) / 1e9 == pytest.approx(52, rel=0.01)


def test_kimi_linear_counts_its_layers_from_one() -> None:
    """20 layers with 32 x 128 x 128 elements and 3 x 3 x 4096 inputs. Published: 48 billion parameters."""
    shape = read(KIMI_LINEAR)
    assert with_kv(shape) == [3, 7, 11, 15, 19, 23, 26]
    assert kv_bytes_per_token(shape) == 7 * 1152
    assert state_bytes_per_request(shape) == 20 * (2_097_152 + 73_728)
    assert (total_parameters(shape) + 2 * 163_840 * 2304) / 1e9 == pytest.approx(49, rel=0.01)


def test_granite_has_mamba_with_heads() -> None:
    """8192 x 128 elements of 4 B, and 3 x (8192 + 2 x 128) of 2 B. Only Mamba layers have them."""
    shape = read(GRANITE_4)
    assert with_kv(shape) == [5]
    assert state_bytes_per_request(shape) == 7 * (4_194_304 + 50_688)
    assert state_bytes_per_request(read(GRANITE_4, layer_types=["attention"] * 8)) == 0


def test_a_convolution_keeps_its_last_inputs() -> None:
    """2 x 2048 x 2 B in 6 of 8 layers."""
    shape = read(LFM2)
    assert with_kv(shape) == [2, 5]
    assert state_bytes_per_request(shape) == 6 * 8192
    assert mixer_of(shape, 0) == Recurrent(
        kind="convolution", heads=2048, weights=4 * 2048 * 2048, flops=0, state_bytes=8192
    )


def test_blocks_of_mixers_and_feed_forwards_are_layers() -> None:
    """M-, M, *-, M-: 4 layers, the second without a feed-forward; 2 x 4096 x 14336 weights in the others.

    A state has 64 x 64 x 128 elements of 4 B, and 3 x (4096 + 2 x 8 x 128) inputs of 2 B.
    """
    shape = read(NEMOTRON_H)
    assert (shape.layers, shape.bare_layers, shape.gated) == (4, (1,), False)
    assert with_kv(shape) == [2]
    assert state_bytes_per_request(shape) == 3 * (2_097_152 + 36_864)
    mamba = 4096 * (2 * 4096 + 2 * 8 * 128 + 64) + 4096 * 4096
    attention, mlp = 2 * 4096 * 128 * (32 + 8), 2 * 4096 * 14336
    assert total_parameters(shape) == 3 * mamba + attention + 3 * mlp


def test_blocks_may_be_experts() -> None:
    """Nemotron 3 Nano. Published: 31.6 billion parameters, 3.6 billion of them active."""
    shape = read(
        NEMOTRON_H,
        hidden_size=2688,
        hybrid_override_pattern="MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
        moe_intermediate_size=1856,
        moe_shared_expert_intermediate_size=3712,
        n_routed_experts=128,
        n_shared_experts=1,
        num_experts_per_tok=6,
        num_hidden_layers=52,
        num_key_value_heads=2,
    )
    embeddings = 2 * 131_072 * 2688
    assert (shape.layers, len(shape.bare_layers), shape.dense_layers) == (29, 6, ())
    assert (total_parameters(shape) + embeddings) / 1e9 == pytest.approx(31.6, rel=0.01)
    assert (active_parameters(shape) + embeddings) / 1e9 == pytest.approx(3.6, rel=0.01)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hybrid_override_pattern": "-M-M*-M"}, "block 0 is a feed-forward that no mixer precedes"),
        ({"hybrid_override_pattern": "M-M*--M"}, "block 5 is a feed-forward that no mixer precedes"),
        ({"hybrid_override_pattern": "M-MX-M-"}, "'X' is not a kind of block that is modelled"),
        (
            {"hybrid_override_pattern": "MEM*EME"},
            "n_routed_experts: missing, and there are blocks of experts",
        ),
        ({"hybrid_override_pattern": "M-M-M-M"}, "no layer of this model is attention with a KV cache"),
    ],
)
def test_blocks_that_are_not_understood_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(NEMOTRON_H, **keys)
    assert message in str(error.value)


def test_lightning_attention_of_minimax() -> None:
    """A state of 32 x 128 x 128 elements of 4 B."""
    shape = read(LLAMA, attn_type_list=[0, 0, 0, 1] * 2, head_dim=128, model_type="minimax")
    assert with_kv(shape) == [3, 7]
    assert state_bytes_per_request(shape) == 6 * 2_097_152


def test_layers_that_attend_to_images_are_left_out() -> None:
    """Llama 3.2 Vision has 40 layers, 8 of which a request of text skips: 32 x 4096 B."""
    shape = read(LLAMA, num_hidden_layers=40, cross_attention_layers=[3, 8, 13, 18, 23, 28, 33, 38])
    assert (shape.layers, kv_bytes_per_token(shape)) == (32, 131_072)
    assert shape.notes[0].startswith("cross_attention_layers: 8 layers that attend to images are left out")
