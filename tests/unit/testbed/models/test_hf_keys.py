"""Which keys of a `config.json` are read, ignored, noted and refused."""

from typing import Any

import pytest

from testbed.models.hf_config import ConfigError, shape_from_config
from testbed.models.hf_harmless import AUXILIARY, HARMLESS, REFUSED
from testbed.models.hf_names import KNOWN
from testbed.models.known_models import MODELS
from testbed.models.sizes import (
    active_parameters,
    all_to_all_bytes_per_token,
    expert_flops_per_visit,
    kv_bytes_per_token,
    shared_flops_per_token,
    total_parameters,
)

LLAMA: dict[str, Any] = {
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
}
MIXTRAL = LLAMA | {"model_type": "mixtral", "num_experts_per_tok": 2, "num_local_experts": 8}


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        shape_from_config(config, "m")
    return str(error.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"cache_groups": 2}, "cache_groups: this key is not known here and could change sizes"),
        ({"cache_groups": 2, "odd_heads": [1]}, "cache_groups, odd_heads: these keys are not known here"),
        ({"heads_in_odd_layers": {"num": 4}}, "heads_in_odd_layers: this key is not known"),
        ({"share_layers": True}, "share_layers: this key is not known"),
        ({"use_gated_mlp": False}, "use_gated_mlp: this key is not known"),  # takes a matrix away
        ({"num_moe_layers": 0}, "num_moe_layers: this key is not known"),  # may switch experts off
        ({"compression_ratio": 4}, "compression_ratio: this key is not known"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads: layers that lack some of their heads"),
        (
            {"text_config": {"vocab_size": 9}, "llm_config": {"vocab_size": 9}},
            "text_config and llm_config: a file with two decoders is not modelled",
        ),
        ({"compress_ratios": [4] * 32}, "compress_ratios: KV that is compressed by layer is not modelled"),
        ({"hybrid_override_pattern": "M*-"}, "hybrid_override_pattern: 3 entries for 32 layers"),
        ({"block_configs": [{"ffn": {}}]}, "block_configs: layers that differ"),
        ({"moe_latent_size": 1024}, "moe_latent_size: the model has experts, but no key says how many"),
        ({"routed_expert_hidden_size": 512}, "routed_expert_hidden_size: experts that work on a narrower"),
        ({"num_key_value_layers": 16}, "num_key_value_layers: KV that layers share in this way"),
        ({"swa_head_dim": 256}, "swa_head_dim: 256 has no meaning together with the other keys"),
        ({"index_topk": 2048}, "index_topk: sparse attention without a latent is not modelled"),
        ({"moe_intermediate_size": 768}, "moe_intermediate_size: the model has experts, but no key says how"),
        ({"residual_moe": True}, "residual_moe: the model has experts, but no key says how many"),
        (
            {"linear_num_value_heads": 32},
            "linear_num_value_heads: not every layer of this model is attention",
        ),
        ({"model_type": "jetmoe"}, "model_type: 'jetmoe': attention that has experts is not modelled"),
        ({"model_type": "longcat_flash"}, "model_type: 'longcat_flash': layers with two attentions are not"),
        ({"model_type": "Dream"}, "model_type: 'dream': text that is made by diffusion"),
        (
            {
                "quantization_config": {"quant_method": "fp8"},
                "text_config": {"quantization_config": {"quant_method": "awq", "bits": 4}},
            },
            "quantization_config: the file and its text_config state different ones",
        ),
        ({"multi_query": "yes"}, "multi_query: 'yes' is not true or false"),
        ({"hidden_act": ["silu"]}, "hidden_act: ['silu'] is not a text"),
        ({"expansion_ratio": 4}, "expansion_ratio: 4 x 4096, but intermediate_size is not that"),
        ({"per_layer_config": [1]}, "per_layer_config: [1] is not a mapping of layers"),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention: only causal attention"),
        ({"causal": False}, "causal: only causal attention is modelled"),
        ({"use_mla": True}, "kv_lora_rank: missing"),
        ({"mlp_type": "gated"}, "mlp_type: this key is not known"),
    ],
)
def test_a_key_that_could_change_sizes_is_refused_by_name(keys: dict[str, Any], message: str) -> None:
    assert message in refusal(LLAMA | keys)


@pytest.mark.parametrize(
    "keys",
    [
        {
            "vocab_size": 128256,
            "rope_theta": 5e5,
            "indexer_rope_interleave": True,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.40",
        },
        {"bos_token_id": 1, "im_patch_token_id": 9, "eos_token_id": [1, 2]},
        {"attention_dropout": 0.1, "resid_pdrop": 0.1, "classifier_dropout_prob": 0.1, "layerdrop": 0.1},
        {"rms_norm_eps": 1e-5, "layernorm_epsilon": 1e-5, "initializer_range": 0.02, "init_std": 0.02},
        {"rope_parameters": {"rope_type": "llama3"}, "vision_feature_layer": -2, "image_grid": [1]},
        {"new_switch": False, "new_list": [], "new_name": None, "new_number": 0},  # say that there is nothing
        {"use_bidirectional_attention": "vision"},  # only in images
        {"pruned_heads": {}, "compression_ratio": 1.0, "use_flash_attention_2": True},
        {"num_local_experts": 8, "num_experts_per_tok": 2, "use_moe": False},
        {"num_experts": 1, "moe_topk": 1},  # Hunyuan calls an MLP one expert
        {"compress_ratios": None, "use_double_wide_mlp": False, "zero_expert_num": 0},
        {"num_local_experts": 0, "num_experts_per_tok": 0, "moe_intermediate_size": 64},  # no experts
    ],
)
def test_a_key_that_changes_no_size_is_ignored(keys: dict[str, Any]) -> None:
    assert shape_from_config(LLAMA | keys, "llama-3-8b") == MODELS["llama-3-8b"]


def test_no_key_is_in_two_lists() -> None:
    known = KNOWN - {"architectures"}
    for these, those in ((known, HARMLESS), (known, set(REFUSED)), (set(AUXILIARY), HARMLESS)):
        assert not these & those


ODD: tuple[Any, ...] = (-1, 3.5, 10**30, "x", [[1]], [{}], {"a": 1}, ["x"] * 32, [{}] * 32, [None] * 32)


@pytest.mark.parametrize("key", sorted(KNOWN | set(AUXILIARY)))
@pytest.mark.parametrize("config", [LLAMA, MIXTRAL], ids=["llama", "mixtral"])
def test_an_odd_value_is_refused_or_without_meaning_but_never_breaks(
    config: dict[str, Any], key: str
) -> None:
    """`ConfigError` is how a value is refused. Any other exception would be a traceback for the user."""
    for value in ODD:
        try:
            shape = shape_from_config(config | {key: value}, "m")
        except ConfigError:
            continue
        assert kv_bytes_per_token(shape) >= 0


def test_two_names_of_a_size_have_to_agree() -> None:
    assert shape_from_config(LLAMA | {"n_layers": 32}, "m").layers == 32
    assert "num_hidden_layers: 32, but n_layers is 16" in refusal(LLAMA | {"n_layers": 16})


def test_structure_is_refused_before_a_missing_size() -> None:
    config = {key: value for key, value in MIXTRAL.items() if key != "num_experts_per_tok"}
    assert "num_experts_per_tok: missing" in refusal(config)
    assert "odd_heads: this key" in refusal(config | {"odd_heads": 3})
    assert "num_key_value_heads: 2 entries for 32 layers" in refusal(config | {"num_key_value_heads": [8, 4]})


def test_parts_that_are_left_out_are_noted() -> None:
    keys = {"num_nextn_predict_layers": 1, "vision_config": {"hidden_size": 1408}, "laurel_rank": 64}
    assert shape_from_config(LLAMA | keys, "m").notes == (
        "num_nextn_predict_layers: layers that predict further tokens are left out, with their KV",
        "vision_config: only the text part of the model is modelled",
        "laurel_rank: its matrices of low rank are left out",
    )


@pytest.mark.parametrize("family", ["mixtral", "mistral", "mllama_text_model"])
@pytest.mark.parametrize("stated", [{}, {"num_key_value_heads": None}])
def test_missing_kv_heads_are_those_of_the_family(family: str, stated: dict[str, Any]) -> None:
    """8 of 128 elements in 32 layers: 2 x 8 x 128 x 2 B x 32 = 131_072 B."""
    config = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"} | stated
    shape = shape_from_config(config | {"model_type": family, "sliding_window": None}, "m")
    assert kv_bytes_per_token(shape) == 131_072
    assert shape.notes == (f"num_key_value_heads: missing, so 8, the default of {family!r}",)


def test_missing_kv_heads_of_an_unknown_family_are_not_guessed() -> None:
    config = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    assert shape_from_config(config, "llama-7b").kv_heads == 32  # as the class of Llama has it
    message = refusal(config | {"model_type": "brand-new"})
    assert message.startswith("num_key_value_heads: missing")
    assert message.endswith("the default of this family is not known")


def test_the_family_may_be_told_by_the_architecture_alone() -> None:
    config = {
        key: value for key, value in MIXTRAL.items() if key not in ("model_type", "num_key_value_heads")
    }
    assert shape_from_config(config | {"architectures": ["MixtralForCausalLM"]}, "m").kv_heads == 8


def test_mistrals_own_format_is_read_with_its_experts() -> None:
    params = {
        "dim": 4096,
        "n_layers": 32,
        "head_dim": 128,
        "hidden_dim": 14336,
        "n_heads": 32,
        "n_kv_heads": 8,
        "norm_eps": 1e-5,
        "vocab_size": 32000,
    }
    experts = {"moe": {"num_experts": 8, "num_experts_per_tok": 2}}
    assert shape_from_config(params | experts, "mixtral-8x7b") == MODELS["mixtral-8x7b"]
    assert shape_from_config(params, "m").experts == 0
    assert "n_experts, k: these keys are not known" in refusal(params | {"moe": {"n_experts": 8, "k": 2}})


def test_an_mlp_beside_the_experts_counts() -> None:
    """Grok-2: 64 x 3 x 8192 x 32768 = 51_539_607_552 of its active parameters are in this MLP."""
    grok = MIXTRAL | {
        "model_type": "git",
        "hidden_size": 8192,
        "intermediate_size": 32768,
        "moe_intermediate_size": 16384,
        "num_attention_heads": 64,
        "num_hidden_layers": 64,
    }
    without = shape_from_config(grok, "m")
    beside = shape_from_config(grok | {"residual_moe": True}, "m")
    assert active_parameters(beside) - active_parameters(without) == 51_539_607_552
    assert active_parameters(beside) / 1e9 == pytest.approx(112.7, rel=1e-3)


def test_experts_may_work_on_a_narrower_hidden_state() -> None:
    """As in Nemotron 3: 3 x 1024 x 14336 weights in an expert, 2 x 4096 x 1024 in projections to and fro.

    A token sends 2 copies of 1024 elements of 2 B to its experts.
    """
    shape = shape_from_config(MIXTRAL | {"moe_latent_size": 1024}, "m")
    expert, projections = 3 * 1024 * 14336, 2 * 4096 * 1024
    assert all_to_all_bytes_per_token(shape) == 2 * 1024 * 2
    assert expert_flops_per_visit(shape) == 2 * expert
    assert shared_flops_per_token(shape) == 2 * projections
    rest = total_parameters(shape_from_config(LLAMA | {"intermediate_size": 1}, "m")) - 32 * 3 * 4096
    assert total_parameters(shape) == rest + 32 * (8 * expert + projections + 8 * 4096)


def test_arctic_has_a_narrow_mlp_beside_its_experts() -> None:
    """Published: 480 billion parameters, 17 billion of them active."""
    shape = shape_from_config(
        MIXTRAL
        | {
            "model_type": "arctic",
            "hidden_size": 7168,
            "intermediate_size": 4864,
            "num_hidden_layers": 35,
            "num_attention_heads": 56,
            "num_local_experts": 128,
            "moe_layer_frequency": 1,
            "use_residual": True,
            "parallel_attn_mlp_res": True,
        },
        "arctic",
    )
    assert shape.shared_ffn == 7168
    assert (total_parameters(shape) + 2 * 32_000 * 7168) / 1e9 == pytest.approx(480, rel=0.01)
    assert (active_parameters(shape) + 2 * 32_000 * 7168) / 1e9 == pytest.approx(17, rel=0.03)


@pytest.mark.parametrize(
    ("keys", "dense"),
    [
        ({"num_dense_layers": 2}, (0, 1)),
        ({"moe_layer_num_skipped": 1}, (0,)),
        ({"moe_layer_frequency": 4}, (0, 1, 2, 4, 5, 6)),  # sparse: the 4th and the 8th
        ({"expert_layer_period": 4, "expert_layer_offset": 1}, (0, 2, 3, 4, 6, 7)),
        ({"moe_layer_freq": [0, 1, 1, 1, 1, 1, 1, 1], "first_k_dense_replace": 1}, (0,)),
    ],
)
def test_dense_layers_are_told_in_further_ways(keys: dict[str, Any], dense: tuple[int, ...]) -> None:
    assert shape_from_config(MIXTRAL | {"num_hidden_layers": 8} | keys, "m").dense_layers == dense


def test_keys_that_contradict_each_other_about_experts_are_refused() -> None:
    keys = {"num_hidden_layers": 4, "moe_layer_freq": [0, 1, 1, 1], "first_k_dense_replace": 2}
    assert "keys contradict each other about the layers with experts" in refusal(MIXTRAL | keys)


@pytest.mark.parametrize(("width", "shared"), [(768, 1536), (1536, 1536)])
def test_a_width_of_shared_experts_is_that_of_one_or_of_all(width: int, shared: int) -> None:
    keys = {"moe_intermediate_size": 768, "n_shared_experts": 2, "shared_expert_intermediate_size": width}
    assert shape_from_config(MIXTRAL | keys, "m").shared_ffn == shared
    odd = keys | {"shared_expert_intermediate_size": 1000}
    assert "1000 may be the width of one or of all of 2 shared experts" in refusal(MIXTRAL | odd)


@pytest.mark.parametrize("family", ["qwen", "molmo"])
def test_some_families_state_two_widths_together(family: str) -> None:
    keys = {"model_type": family, "intermediate_size": 22016, "kv_channels": 128, "num_key_value_heads": 32}
    shape = shape_from_config(LLAMA | keys, "m")
    assert (shape.ffn, shape.kv_heads, shape.head_dim) == (11008, 32, 128)


def test_a_gated_activation_has_three_matrices_with_the_keys_of_gpt_2_too() -> None:
    """Jais: 40 layers with 4 x 5120² of attention and 3 x 5120 x 13653, where GPT-2 has two matrices."""
    keys = {"n_embd": 5120, "n_head": 40, "n_inner": 13653, "n_layer": 40, "num_key_value_heads": 40}
    gated = shape_from_config(keys | {"activation_function": "swiglu", "model_type": "jais"}, "m")
    assert total_parameters(gated) == 40 * (4 * 5120**2 + 3 * 5120 * 13653)
    plain = shape_from_config(keys | {"activation_function": "gelu", "model_type": "jais"}, "m")
    assert total_parameters(plain) == 40 * (4 * 5120**2 + 2 * 5120 * 13653)


def test_falcon_may_leave_out_what_its_new_architecture_does_not_ask() -> None:
    """Falcon-40B: 60 layers x 8 heads x 64 elements x 2 x 2 B; its width is 4 x the hidden size."""
    keys = {
        "model_type": "falcon",
        "hidden_size": 8192,
        "new_decoder_architecture": True,
        "num_attention_heads": 128,
        "num_hidden_layers": 60,
        "num_kv_heads": 8,
    }
    shape = shape_from_config(keys, "falcon-40b")
    assert (kv_bytes_per_token(shape), shape.ffn, shape.gated) == (122_880, 32_768, False)
    assert shape_from_config(keys | {"ff_factor": 4, "ffn_hidden_size": 32_768}, "m").ffn == 32_768
    assert "ff_factor: 4 x 8192, but ffn_hidden_size is not that" in refusal(
        keys | {"ff_factor": 4, "ffn_hidden_size": 16_384}
    )
