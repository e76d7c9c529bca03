"""Shapes from published `config.json` files, without the keys that do not matter for a size."""

from typing import Any

import msgspec
import pytest

from testbed.models.hf_config import ConfigError, shape_from_config
from testbed.models.known_models import MODELS
from testbed.models.sizes import is_sparse, total_parameters

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
}
MIXTRAL_8X7B = LLAMA_3_8B | {
    "model_type": "mixtral",
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
    "sliding_window": None,
}
QWEN3_235B = {
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "max_window_layers": 94,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 1536,
    "num_attention_heads": 64,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 94,
    "num_key_value_heads": 4,
    "sliding_window": None,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
}
QWEN2_5_72B = {
    "hidden_act": "silu",
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "max_window_layers": 80,
    "model_type": "qwen2",
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "num_key_value_heads": 8,
    "sliding_window": 131072,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
}
DBRX = {
    "architectures": ["DbrxForCausalLM"],
    "attn_config": {"clip_qkv": 8, "kv_n_heads": 8, "model_type": "", "rope_theta": 500000},
    "d_model": 6144,
    "ffn_config": {"ffn_hidden_size": 10752, "model_type": "", "moe_num_experts": 16, "moe_top_k": 4},
    "model_type": "dbrx",
    "n_heads": 48,
    "n_layers": 40,
    "torch_dtype": "bfloat16",
}
GROK_1 = {
    "hidden_size": 6144,
    "intermediate_size": 32768,
    "model_type": "grok-1",
    "num_attention_heads": 48,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 64,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
}
DEEPSEEK_V3 = {
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    },
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
}
LLAMA_4_MAVERICK = {
    "model_type": "llama4",
    "text_config": {
        "attention_chunk_size": 8192,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 5120,
        "interleave_moe_layer_step": 2,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "model_type": "llama4_text",
        "num_attention_heads": 40,
        "num_experts_per_tok": 1,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
        "num_local_experts": 128,
    },
    "torch_dtype": "bfloat16",
    "vision_config": {"hidden_size": 1408, "intermediate_size": 5632, "num_hidden_layers": 34},
}
GPT2 = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": 768,
    "n_head": 12,
    "n_inner": None,
    "n_layer": 12,
}
FALCON_7B = {
    "hidden_size": 4544,
    "model_type": "falcon",
    "multi_query": True,
    "new_decoder_architecture": False,
    "num_attention_heads": 71,
    "num_hidden_layers": 32,
    "torch_dtype": "bfloat16",
}
GPT_OSS_20B = {
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "quantization_config": {"quant_method": "mxfp4"},
    "sliding_window": 128,
}
GEMMA_3_4B = {
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
}
QWEN1_5_MOE = {
    "decoder_sparse_step": 1,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "model_type": "qwen2_moe",
    "moe_intermediate_size": 1408,
    "num_attention_heads": 16,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 16,
    "shared_expert_intermediate_size": 5632,
    "sliding_window": 32768,
    "use_sliding_window": False,
}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("llama-3-8b", LLAMA_3_8B),
        ("mixtral-8x7b", MIXTRAL_8X7B),
        ("qwen2.5-72b", QWEN2_5_72B),
        ("qwen3-235b-a22b", QWEN3_235B),
        ("dbrx", DBRX),
        ("grok-1", GROK_1),
        ("deepseek-v3", DEEPSEEK_V3),
    ],
)
def test_the_file_of_a_model_known_here_gives_the_same_shape(name: str, config: dict[str, Any]) -> None:
    assert shape_from_config(config, name) == MODELS[name]


def test_a_vision_model_is_its_text_part() -> None:
    """Every second of 48 layers is sparse, with a shared expert beside 128 routed ones."""
    shape = shape_from_config(LLAMA_4_MAVERICK, "maverick")
    assert (shape.layers, shape.hidden, shape.q_heads, shape.kv_heads) == (48, 5120, 40, 8)
    assert (shape.ffn, shape.experts, shape.top_k, shape.shared_ffn) == (8192, 128, 1, 8192)
    assert shape.dense_ffn == 16384
    assert [layer for layer in range(48) if is_sparse(shape, layer)] == list(range(1, 48, 2))
    # Published: 400 billion, with 2 x 202_048 x 5120 of embeddings and 0.9 billion of the vision part.
    assert (total_parameters(shape) + 2 * 202_048 * 5120) / 1e9 == pytest.approx(400, rel=0.01)


def test_gpt_2_names_its_sizes_otherwise_and_has_no_gate() -> None:
    """12 x (4 x 768 x 768 + 2 x 768 x 3072) = 84_934_656 of its 124 million; 39 million are embeddings."""
    shape = shape_from_config(GPT2, "gpt2")
    assert (shape.ffn, shape.head_dim, shape.kv_heads, shape.gated) == (3072, 64, 12, False)
    assert total_parameters(shape) == 84_934_656


def test_multi_query_attention_has_one_kv_head() -> None:
    shape = shape_from_config(FALCON_7B, "falcon-7b")
    assert (shape.q_heads, shape.kv_heads, shape.head_dim, shape.ffn) == (71, 1, 64, 18176)


def test_what_a_file_leaves_to_its_class_is_known() -> None:
    """Gemma 3 4B has 8 heads of 256 and 4 KV heads; its file says none of this. 2560 / 8 would be 320."""
    shape = shape_from_config(GEMMA_3_4B, "gemma-3-4b")
    assert (shape.q_heads, shape.kv_heads, shape.head_dim) == (8, 4, 256)
    assert shape.gated


def test_shared_experts_are_wide_or_many() -> None:
    assert shape_from_config(QWEN1_5_MOE, "qwen").shared_ffn == 5632
    assert shape_from_config(DEEPSEEK_V3 | {"n_shared_experts": 2}, "deepseek").shared_ffn == 4096


def test_dense_layers_may_have_a_width_of_their_own() -> None:
    """As in MiniMax-M3, whose `intermediate_size` is that of an expert."""
    keys = {"moe_layer_freq": [0] + [1] * 31, "dense_intermediate_size": 12288}
    shape = shape_from_config(MIXTRAL_8X7B | keys, "m")
    assert (shape.ffn, shape.dense_ffn, shape.dense_layers) == (14336, 12288, (0,))


def test_queries_without_a_latent_of_their_own() -> None:
    shape = shape_from_config(DEEPSEEK_V3 | {"q_lora_rank": None}, "lite")
    assert shape.latent is not None
    assert shape.latent.q_rank == 0


@pytest.mark.parametrize(
    ("keys", "dense"),
    [
        ({"decoder_sparse_step": 4}, (0, 1, 2, 4, 5, 6)),  # sparse: the 4th and the 8th
        ({"mlp_only_layers": [1, 6]}, (1, 6)),
        ({"first_k_dense_replace": 2, "moe_layer_freq": 3}, (0, 1, 2, 4, 5, 7)),  # sparse: 3 and 6
        ({"moe_layer_freq": [0, 1, 1, 1, 1, 1, 1, 0]}, (0, 7)),
        ({"mlp_layer_types": ["dense", *["sparse"] * 7]}, (0,)),
        ({"moe_layers": [3, 7]}, (0, 1, 2, 4, 5, 6)),
        ({"moe_layer_start_index": 1, "moe_layer_end_index": 5}, (0, 6, 7)),
        ({"moe_layer_end_index": -1}, ()),
    ],
)
def test_dense_layers_are_told_in_many_ways(keys: dict[str, Any], dense: tuple[int, ...]) -> None:
    shape = shape_from_config(MIXTRAL_8X7B | {"num_hidden_layers": 8} | keys, "mixed")
    assert shape.dense_layers == dense
    assert shape.dense_ffn == (14336 if dense else 0)


@pytest.mark.parametrize(
    ("config", "window"),
    [
        (LLAMA_3_8B | {"model_type": "mistral", "sliding_window": 4096}, 4096),
        (LLAMA_3_8B | {"model_type": "phi3", "sliding_window": 2047}, 2047),
        (QWEN2_5_72B, None),
        (QWEN2_5_72B | {"use_sliding_window": True, "max_window_layers": 0}, 131072),
        (QWEN2_5_72B | {"use_sliding_window": True}, None),  # only from layer 80 on
        (GPT_OSS_20B, None),  # every other layer
        (GPT_OSS_20B | {"layer_types": ["sliding_attention"] * 24}, 128),
        (GEMMA_3_4B, None),  # five of six layers, which the file does not say
    ],
)
def test_a_window_counts_where_every_layer_has_it(config: dict[str, Any], window: int | None) -> None:
    assert shape_from_config(config, "m").window == window


@pytest.mark.parametrize(
    ("keys", "weight", "activation", "kv"),
    [
        ({}, 2, 2, 2),
        ({"torch_dtype": None}, 2, 2, 2),
        ({"torch_dtype": "float32"}, 2, 2, 2),
        ({"torch_dtype": None, "dtype": "float32"}, 2, 2, 2),
        ({"quantization_config": {"quant_method": "fp8"}}, 1, 2, 2),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, 0.5, 2, 2),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, 1, 2, 2),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, 0.5, 2, 2),
        (
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": {"group_0": {"weights": {"num_bits": 8}}},
                    "kv_cache_scheme": {"num_bits": 8},
                }
            },
            *(1, 2, 1),
        ),
    ],
)
def test_elements_are_as_wide_as_the_file_says(
    keys: dict[str, Any], weight: float, activation: int, kv: float
) -> None:
    shape = shape_from_config(LLAMA_3_8B | keys, "m")
    assert (shape.weight_bytes, shape.bytes_per_element, shape.kv_element_bytes) == (weight, activation, kv)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "num_hidden_layers: missing (so are n_layer, n_layers, num_layers)"),
        (LLAMA_3_8B | {"intermediate_size": None}, "intermediate_size: missing"),
        (LLAMA_3_8B | {"hidden_size": -4096}, "hidden_size: -4096 is not a whole number of at least 1"),
        (LLAMA_3_8B | {"hidden_size": True}, "hidden_size: True is not a whole number"),
        (LLAMA_3_8B | {"num_hidden_layers": 32.0}, "num_hidden_layers: 32.0 is not a whole number"),
        (LLAMA_3_8B | {"num_attention_heads": 36}, "num_key_value_heads: 8 KV heads do not divide 36"),
        (
            LLAMA_3_8B | {"num_attention_heads": 40},
            "num_attention_heads: 40 heads do not divide a hidden size of 4096, and head_dim is missing",
        ),
        (MIXTRAL_8X7B | {"num_experts_per_tok": 9}, "num_experts_per_tok: a token cannot choose 9 of 8"),
        (MIXTRAL_8X7B | {"num_experts_per_tok": None}, "num_experts_per_tok: missing"),
        (MIXTRAL_8X7B | {"first_k_dense_replace": 32}, "num_local_experts: 8 experts, but no layer has any"),
        (MIXTRAL_8X7B | {"mlp_only_layers": [32]}, "mlp_only_layers: there is no layer 32 in a model of 32"),
        (MIXTRAL_8X7B | {"moe_layer_freq": [1, 0]}, "moe_layer_freq: 2 entries for 32 layers"),
        (LLAMA_3_8B | {"intermediate_size": [1, 2]}, "intermediate_size: layers that differ in this"),
        (
            LLAMA_3_8B | {"num_attention_heads_per_layer": [32, 64] * 16},
            "head_dim: missing, and layers differ in their heads",
        ),
        (MIXTRAL_8X7B | {"mlp_layer_types": ["dense"] * 3}, "mlp_layer_types: needs dense or sparse"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "is_encoder_decoder: this model has an encoder"),
        (LLAMA_3_8B | {"model_type": "bert"}, "model_type: 'bert' is an encoder"),
        (LLAMA_3_8B | {"mamba_d_state": 16}, "mamba_d_state: not every layer"),
        (
            LLAMA_3_8B | {"layer_types": ["full_attention", "retention"] * 16},
            "layer_types: 'retention' is not a",
        ),
        (LLAMA_3_8B | {"torch_dtype": "int3"}, "torch_dtype: 'int3' is not one of"),
        (LLAMA_3_8B | {"num_hidden_layers": 32_000}, "num_hidden_layers: 32000 layers are more than any"),
        (LLAMA_3_8B | {"hidden_size": 10**12}, "hidden_size: 1000000000000 is more than any model has"),
        (LLAMA_3_8B | {"quantization_config": {"quant_method": "new"}}, "not known for the method 'new'"),
        (DEEPSEEK_V3 | {"v_head_dim": None}, "v_head_dim: missing"),
    ],
)
def test_what_is_wrong_is_blamed_on_its_key(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        shape_from_config(config, "m")
    assert message in str(error.value)


def test_a_list_of_equal_sizes_is_that_size() -> None:
    shape = shape_from_config(LLAMA_3_8B | {"intermediate_size": [14336] * 32}, "llama-3-8b")
    assert shape == MODELS["llama-3-8b"]


def test_a_width_of_heads_that_is_stated_need_not_follow_from_the_hidden_size() -> None:
    shape = shape_from_config(LLAMA_3_8B | {"head_dim": 96}, "m")
    assert shape == msgspec.structs.replace(MODELS["llama-3-8b"], name="m", head_dim=96)
