"""Number formats of weights and of the KV cache."""

from typing import Any

import pytest

from testbed.models.hf_config import ConfigError, shape_from_config
from testbed.models.shape import ModelShape
from testbed.models.sizes import active_parameter_bytes, expert_weight_bytes, kv_bytes_per_token

# 64 layers with 8 KV heads of 128 elements: 2 x 8 x 128 x 64 = 131_072 elements of KV per token.
MODEL: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 64,
    "num_key_value_heads": 8,
}
EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 2}
DEEPSEEK: dict[str, Any] = {
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "model_type": "deepseek_v3",
    "num_attention_heads": 128,
    "num_hidden_layers": 61,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}


OUTPUTS = {"weight": {"dtype": "fp8_e4m3"}, "output_tensors": {"dtype": "fp8_e4m3"}}
QUARK: dict[str, Any] = {
    "quant_method": "quark",
    "export": {"kv_cache_group": ["*k_proj", "*v_proj"], "min_kv_scale": 0.0},
    "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}, "output_tensors": None},
    "layer_quant_config": {"*k_proj": OUTPUTS, "*v_proj": OUTPUTS},
}


def read(**keys: Any) -> ModelShape:
    return shape_from_config(MODEL | keys, "m")


@pytest.mark.parametrize(
    "keys",
    [
        {"kv_cache_scheme": "FP8"},
        {"kv_cache_scheme": ["FP8"]},
        {"kv_cache_scheme": {"num_bits": 8, "type": "float"}},
        {"kv_cache_quant_algo": "FP8"},
        {"kv_cache_dtype": "fp8_e4m3"},
        {"quantization_config": {"quant_method": "fp8", "kv_cache_scheme": "FP8"}},
        {
            "quantization_config": {
                "quant_method": "modelopt",
                "quant_algo": "FP8",
                "kv_cache_quant_algo": "INT8",
            }
        },
        {
            "compression_config": {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8}}},
                "kv_cache_scheme": {"num_bits": 8},
            }
        },
        {"hf_quant_config.json": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}},
        {"quantization_config": QUARK},
        {"quantization_config": {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8}}},
    ],
)
def test_eight_bits_of_kv_are_told_in_many_ways(keys: dict[str, Any]) -> None:
    assert kv_bytes_per_token(read(**keys)) == 131_072


@pytest.mark.parametrize(
    ("scheme", "kv_bytes"),
    [
        ("auto", 262_144),
        ("bfloat16", 262_144),
        (None, 262_144),
        ({"num_bits": 4}, 65_536),
        ("NVFP4", 73_728),  # a scale of 8 bits for 16 elements
        ("mxfp8", 135_168),  # for 32
        ("q8_0", 139_264),  # of 16 bits for 32
    ],
)
def test_other_widths_of_kv(scheme: Any, kv_bytes: int) -> None:
    assert kv_bytes_per_token(read(kv_cache_scheme=scheme)) == kv_bytes


def test_four_bits_of_kv_are_noted_to_lack_scales() -> None:
    noted = "kv_cache_scheme: KV of 4 bits counts without its scales"
    assert noted in read(kv_cache_scheme={"num_bits": 4}).notes
    assert noted not in read(kv_cache_scheme="NVFP4").notes


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kv_cache_scheme": "TINY"}, "kv_cache_scheme: 'TINY' is not a number format that is known"),
        ({"kv_cache_scheme": ["FP8", "FP4"]}, "kv_cache_scheme: ['FP8', 'FP4'] is not one number format"),
        ({"kv_cache_scheme": {"dynamic": True}}, "states no number of bits"),
        ({"kv_cache_scheme": "FP8", "kv_cache_dtype": "fp4"}, "say different things about the KV cache"),
        (
            {"quantization_config": {"quant_method": "fp8", "kv_cache_mix": ["FP8"]}},
            "kv_cache_mix: this is not understood, and is about the KV cache",
        ),
        (
            {"quantization_config": {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}},
            "weights of several widths are not modelled",
        ),
        (
            {
                "quantization_config": {"quant_method": "fp8"},
                "hf_quant_config.json": {"quant_algo": "NVFP4"},
            },
            "say different things about weights",
        ),
        ({"kv_cache_dtype": "fp8_ds_mla"}, "a cache of several number formats is not modelled"),
        (
            {"quantization_config": {"quant_method": "fp8", "k_cache_dtype": "fp8"}},
            "k_cache_dtype: this is not understood, and is about the KV cache",
        ),
        ({"quantization": 7}, "quantization: 7 is not a mapping"),
        (
            {"quantization_config": QUARK | {"layer_quant_config": {"*k_proj": OUTPUTS}}},
            "kv_cache_group: ['*k_proj', '*v_proj']: no format is stated for these outputs",
        ),
        (
            {"quantization_config": {"quant_method": "fp8", "export": {"kv_cache_bits": 4}}},
            "export.kv_cache_bits: this is not understood, and is about the KV cache",
        ),
        ({"cache_implementation": "quantized"}, "cache_implementation: a quantised cache of a width"),
    ],
)
def test_a_format_that_is_not_understood_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(**keys)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("quantization", "weight"),
    [
        ({"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}, 0.5),
        ({"quant_algo": "W4A16_AWQ"}, 0.5),
        ({"quant_algo": "W4A8_AWQ"}, 0.5),
        ({"quant_algo": "FP8_PB_WO"}, 1.0),
        ({"quant_algo": "W8A8_SQ_PER_CHANNEL"}, 1.0),
        ({"quant_algo": None}, 2.0),
        ({"qformat_weight": "fp8_e4m3"}, 1.0),
        ({"global_quant_config": {"weight": {"dtype": "int8"}}, "quant_method": "quark"}, 1.0),
    ],
)
def test_weights_are_as_wide_as_their_algorithm_says(quantization: dict[str, Any], weight: float) -> None:
    assert read(**{"hf_quant_config.json": quantization}).weight_bytes == weight


def test_a_latent_is_kept_in_eight_bits_too() -> None:
    """61 x 576 x 1 B, as NVIDIA's 4-bit DeepSeek has it."""
    quantized = {"hf_quant_config.json": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}
    shape = shape_from_config(DEEPSEEK | quantized, "m")
    assert (kv_bytes_per_token(shape), shape.weight_bytes) == (35_136, 0.5)


@pytest.mark.parametrize(
    "keys", [{"expert_dtype": "fp4"}, {"quantization_config": {"quant_method": "mxfp4"}}]
)
def test_experts_may_have_a_width_of_their_own(keys: dict[str, Any]) -> None:
    """3 x 4096 x 14336 weights of 4 bits; a token visits two such experts in each of 64 layers."""
    shape, plain = read(**EXPERTS, **keys), read(**EXPERTS)
    expert = 3 * 4096 * 14336
    assert (shape.weight_bytes, expert_weight_bytes(shape)) == (2.0, expert // 2)
    assert active_parameter_bytes(plain) - active_parameter_bytes(shape) == 64 * 2 * expert * 3 // 2


def test_weights_that_stay_wide_are_noted() -> None:
    ignored = {"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "model.layers.0.self_attn"]}
    assert read(quantization_config=ignored).notes == (
        "quantization_config: weights that are not quantised (modules_to_not_convert) count as quantised",
    )
    assert read(quantization_config=ignored | {"modules_to_not_convert": ["lm_head"]}).notes == ()


@pytest.mark.parametrize(
    "own",
    [
        {"quant_method": "gptq", "bits": 4, "dynamic": {"+:.*down.*": {"bits": 8}}},
        {"quant_method": "auto-round", "bits": 4, "extra_config": {"model.layers.0.mlp": {"bits": 16}}},
        QUARK | {"layer_quant_config": {"*down_proj": {"weight": {"dtype": "int4"}}}, "export": {}},
    ],
)
def test_single_layers_with_other_weights_are_noted(own: dict[str, Any]) -> None:
    assert any("weights with a format of their own" in note for note in read(quantization_config=own).notes)
    assert read(quantization_config=QUARK).notes == ()


def test_groups_of_several_widths_count_as_the_widest() -> None:
    groups = {"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 8}}}
    shape = read(quantization_config={"quant_method": "compressed-tensors", "config_groups": groups})
    assert shape.weight_bytes == 1.0
    assert shape.notes == ("quantization_config: weights of [4, 8] bits; all count as 8 bits",)
