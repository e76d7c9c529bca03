"""Models whose layers differ: in heads, in windows, and in whose KV they use."""

from typing import Any

import pytest
from config_files import LLAMA

from testbed.models.hf_config import ConfigError, shape_from_config
from testbed.models.mixers import kv_source, mixer_of
from testbed.models.shape import Attention, ModelShape
from testbed.models.sizes import (
    kv_bytes_per_token,
    kv_bytes_per_token_layer,
    score_flops,
    total_parameters,
)

GEMMA_4: dict[str, Any] = {
    "global_head_dim": 512,
    "head_dim": 256,
    "hidden_size": 5376,
    "intermediate_size": 21504,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 10,
    "model_type": "gemma4_text",
    "num_attention_heads": 32,
    "num_global_key_value_heads": 4,
    "num_hidden_layers": 60,
    "num_key_value_heads": 16,
    "sliding_window": 1024,
}


def read(config: dict[str, Any], **keys: Any) -> ModelShape:
    return shape_from_config(config | keys, "m")


def refusal(config: dict[str, Any], **keys: Any) -> str:
    with pytest.raises(ConfigError) as error:
        read(config, **keys)
    return str(error.value)


def windows(shape: ModelShape) -> list[int | None]:
    found = [mixer_of(shape, layer) for layer in range(shape.layers)]
    return [mixer.window for mixer in found if isinstance(mixer, Attention)]


def with_kv(shape: ModelShape) -> list[int]:
    return [layer for layer in range(shape.layers) if kv_bytes_per_token_layer(shape, layer)]


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{}, {"attention_k_eq_v": True}])
def test_windowed_and_global_layers_may_have_heads_of_their_own(keys: dict[str, Any]) -> None:
    """50 layers with 16 x 256 and 10 with 4 x 512: 2 x (50 x 4096 + 10 x 2048) = 450_560 elements."""
    shape = read(GEMMA_4, **keys)
    assert kv_bytes_per_token(shape) == 2 * 450_560
    assert [kv_bytes_per_token_layer(shape, layer) for layer in (4, 5)] == [16_384, 8_192]


def test_one_projection_for_keys_and_values_has_fewer_weights() -> None:
    """In 10 layers, 5376 x 4 x 512 = 11_010_048 weights of the values are missing; both are still cached."""
    plain, one = read(GEMMA_4), read(GEMMA_4, attention_k_eq_v=True)
    assert total_parameters(plain) - total_parameters(one) == 10 * 11_010_048


def test_a_switch_that_is_off_leaves_the_kv_heads_of_global_layers_alone() -> None:
    """Then 10 layers have 16 x 512."""
    elements = 2 * (50 * 16 * 256 + 10 * 16 * 512)
    assert kv_bytes_per_token(read(GEMMA_4, attention_k_eq_v=False)) == 2 * elements


def test_windowed_layers_of_mimo() -> None:
    """Keys of 192 and values of 128 elements, in 4 KV heads or in 8: 4 x 320 x 2 B and 8 x 320 x 2 B."""
    shape = read(
        LLAMA,
        head_dim=192,
        hybrid_layer_pattern=[0, 1, 1, 1, 0, 1, 1, 1],
        model_type="mimo_v2_flash",
        num_attention_heads=64,
        num_key_value_heads=4,
        sliding_window=128,
        swa_head_dim=192,
        swa_num_attention_heads=64,
        swa_num_key_value_heads=8,
        swa_v_head_dim=128,
        v_head_dim=128,
    )
    assert kv_bytes_per_token(shape) == 2 * 2_560 + 6 * 5_120
    # Scores of one token: 2 x 64 heads x (192 + 128) FLOPs per key, with 128 keys in the window.
    assert score_flops(shape, 1, new_tokens=1, prefix_tokens=1000) == 40_960 * 128
    assert score_flops(shape, 0, new_tokens=1, prefix_tokens=1000) == 40_960 * 1001


def test_lists_give_each_layer_its_heads() -> None:
    """2 x 128 x 2 B per KV head: 4 layers with 8 and 4 with 2."""
    shape = read(LLAMA, num_key_value_heads=[8, 2] * 4)
    assert kv_bytes_per_token(shape) == 4 * 8 * 512 + 4 * 2 * 512
    assert "3 KV heads do not divide 32" in refusal(LLAMA, num_key_value_heads=[8, 3] * 4)


def test_single_layers_may_be_told_apart() -> None:
    shape = read(LLAMA, per_layer_config={"05": {"head_dim": 256, "num_key_value_heads": 2}})
    assert kv_bytes_per_token_layer(shape, 5) == 2 * 2 * 256 * 2
    assert kv_bytes_per_token_layer(shape, 4) == 2 * 8 * 128 * 2
    assert "'08' is not a layer of a model of 8 layers" in refusal(
        LLAMA, per_layer_config={"08": {}, "09": {}}
    )
    assert "per_layer_config: hidden_size of single layers" in refusal(
        LLAMA, per_layer_config={"05": {"hidden_size": 9}}
    )


def test_values_may_be_narrower_than_keys() -> None:
    assert kv_bytes_per_token_layer(read(LLAMA, v_head_dim=64), 0) == 8 * (128 + 64) * 2


def test_ranks_that_a_switch_turns_off_do_not_make_a_latent() -> None:
    """As in Hunyuan, whose files state them."""
    shape = read(LLAMA, use_mla=False, kv_lora_rank=512, q_lora_rank=1536, v_head_dim=64)
    assert (shape.latent, kv_bytes_per_token_layer(shape, 0)) == (None, 4096)


def test_index_keys_count_as_kv() -> None:
    """DeepSeek-V3.2: 61 x (576 x 2 + 132) B. Beyond 2048 tokens a token attends to 2048, and scores all."""
    latent = {"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64}
    index = {"index_head_dim": 128, "index_n_heads": 64, "index_topk": 2048}
    shape = read(LLAMA, num_hidden_layers=61, num_attention_heads=128, v_head_dim=128, **latent, **index)
    assert kv_bytes_per_token(shape) == 61 * (1_152 + 132)
    attention, scoring = 2 * 128 * 320 * 2048, 2 * 64 * 128 * 10_001
    assert score_flops(shape, 0, new_tokens=1, prefix_tokens=10_000) == attention + scoring
    assert shape.notes[0].startswith("index_head_dim: each layer keeps an index key of 132 B per token")


# --- windows --------------------------------------------------------------------------------------

SOME = [None, 512, 512, 512, None, 512, 512, 512]
EVERY_4TH = [512, 512, 512, None] * 2


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"global_attn_every_n_layers": 4}, EVERY_4TH),
        ({"sliding_window_pattern": 4}, EVERY_4TH),
        ({"sliding_window_pattern": "LLLG"}, EVERY_4TH),
        ({"layer_switch": 4}, EVERY_4TH),
        ({"model_type": "cohere2"}, EVERY_4TH),
        ({"model_type": "gpt_oss"}, [512, None] * 4),
        ({"model_type": "mistral"}, [512] * 8),
        ({"hybrid_layer_pattern": [0, 1, 1, 1, 0, 1, 1, 1]}, SOME),
        ({"layer_types": ["full_attention", *["sliding_attention"] * 3] * 2}, SOME),
        ({"use_sliding_window": True, "max_window_layers": 6, "model_type": "qwen2"}, [None] * 6 + [512] * 2),
        ({"use_sliding_window": False, "layer_types": ["sliding_attention"] * 8}, [None] * 8),
        ({"sliding_window": -1, "global_attn_every_n": 1}, [None] * 8),
        (
            {"sliding_window": None, "window_size": 512, "attention_types": [[["global", "local"], 4]]},
            [None, 512] * 4,
        ),
    ],
)
def test_windows_are_told_in_many_ways(keys: dict[str, Any], expected: list[int | None]) -> None:
    assert windows(read(LLAMA | {"sliding_window": 512} | keys)) == expected


def test_a_window_of_unknown_layers_counts_for_none_and_is_noted() -> None:
    shape = read(LLAMA, sliding_window=512, model_type="llama")
    assert windows(shape) == [None] * 8
    assert shape.notes[0].startswith("sliding_window: the file does not say which layers have this window")


def test_kv_outside_a_window_is_noted() -> None:
    shape = read(LLAMA, sliding_window=512, model_type="mistral")
    assert shape.notes == ("sliding_window: KV outside the window of 512 tokens is kept and sent, too",)


def test_attention_in_chunks_counts_as_a_window() -> None:
    shape = read(LLAMA, attention_chunk_size=512, model_type="llama4_text", head_dim=128)
    assert windows(shape) == EVERY_4TH
    assert shape.notes[0].startswith("attention_chunk_size: attention within a chunk counts as a window")


# --- sharing --------------------------------------------------------------------------------------


def test_the_last_layers_may_use_the_kv_of_earlier_ones() -> None:
    """Layers 4 to 7 use that of the last layer before 4 with the same window: 2 and 3."""
    kinds = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"] * 2
    shape = read(LLAMA, layer_types=kinds, sliding_window=512, num_kv_shared_layers=4)
    assert with_kv(shape) == [0, 1, 2, 3]
    assert [kv_source(shape, layer) for layer in range(8)] == [0, 1, 2, 3, 2, 2, 2, 3]
    # 4 layers lack the projections of K and V: 2 x 4096 x 8 x 128 weights each.
    assert total_parameters(read(LLAMA)) - total_parameters(shape) == 4 * 8_388_608


def test_pairs_of_layers_may_share_kv() -> None:
    shape = read(LLAMA, use_cla=True, cla_share_factor=2, model_type="hunyuan")
    assert with_kv(shape) == [0, 2, 4, 6]
    assert kv_bytes_per_token(shape) == 4 * 4096
    assert with_kv(read(LLAMA, use_cla=False, cla_share_factor=2)) == list(range(8))


def test_kv_that_no_layer_keeps_cannot_be_shared() -> None:
    message = "num_kv_shared_layers: no earlier layer has the KV for the last"
    assert message in refusal(LLAMA, num_kv_shared_layers=8)
    kinds = ["full_attention"] * 4 + ["sliding_attention"] * 4
    assert message in refusal(LLAMA, layer_types=kinds, sliding_window=512, num_kv_shared_layers=4)


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"layer_types": ["linear_attention"] * 8},
            "layer_types: no layer of this model is attention with a KV",
        ),
        (
            {"layers_block_type": ["mamba", "hybrid"] * 4},
            "layers_block_type: 'hybrid' is not a kind of layer",
        ),
        ({"layer_types": ["full_attention"] * 7}, "layer_types: 7 entries for 8 layers"),
        ({"layer_types": ["mamba", "attention"] * 4}, "the layers without KV of 'llama' are not modelled"),
        ({"attn_type_list": [2] * 8}, "attn_type_list: needs 0 or 1 for each of 8 layers"),
        (
            {"linear_attn_config": {"full_attn_layers": [0]}},
            "linear_attn_config.full_attn_layers: there is no l",
        ),
        (
            {"linear_attn_config": {"full_attn_layers": [4], "kda_layers": [1, 2]}},
            "linear_attn_config: its lists do not cover each of 8 layers once",
        ),
        (
            {"layer_types": ["full_attention"] * 8, "full_attention_interval": 4},
            "full_attention_interval: contradicts layer_types: other layers have no KV",
        ),
        ({"attn_layer_indices": [8]}, "attn_layer_indices: there is no layer 8 in a model of 8 layers"),
        ({"sliding_window_pattern": "LX", "sliding_window": 9}, "'LX' does not consist of L and G"),
    ],
)
def test_a_mix_of_layers_that_is_not_understood_is_refused(keys: dict[str, Any], message: str) -> None:
    assert message in refusal(LLAMA, **keys)
