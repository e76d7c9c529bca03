"""Bytes and FLOPs of the published shapes, each worked out from the shape."""

import pytest

from testbed.job import ModelShape
from testbed.serving.gpus import ASSUMED_EFFICIENCY, GPUS, compute_s, memory_s
from testbed.serving.models import (
    MODELS,
    active_parameter_bytes,
    all_to_all_bytes_per_token,
    expert_flops_per_visit,
    ffn_flops_per_token,
    gate_flops_per_token,
    kv_bytes_per_token,
    kv_bytes_per_token_layer,
    projection_flops_per_token,
    score_flops,
)


@pytest.mark.parametrize(
    ("name", "per_layer", "in_all"),
    [
        ("mixtral-8x7b", 4096, 131_072),  # 2 x 8 x 128 x 2 = 4096; x 32 layers
        ("mixtral-8x22b", 4096, 229_376),  # x 56
        ("llama-3-8b", 4096, 131_072),  # x 32
        ("llama-3-70b", 4096, 327_680),  # x 80
        ("qwen3-30b-a3b", 2048, 98_304),  # 2 x 4 x 128 x 2 = 2048; x 48
        ("dbrx", 4096, 163_840),  # x 40
        ("grok-1", 4096, 262_144),  # x 64
    ],
)
def test_kv_bytes_are_two_vectors_per_kv_head(name: str, per_layer: int, in_all: int) -> None:
    assert kv_bytes_per_token_layer(MODELS[name]) == per_layer
    assert kv_bytes_per_token(MODELS[name]) == in_all


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mixtral-8x7b", 16_384),  # 2 x 4096 x 2
        ("mixtral-8x22b", 24_576),  # 2 x 6144 x 2
        ("llama-3-8b", 0),
        ("llama-3-70b", 0),
        ("qwen3-30b-a3b", 32_768),  # 8 x 2048 x 2
        ("dbrx", 49_152),  # 4 x 6144 x 2
        ("grok-1", 24_576),  # 2 x 6144 x 2
    ],
)
def test_a_token_is_dispatched_once_per_chosen_expert(name: str, size: int) -> None:
    assert all_to_all_bytes_per_token(MODELS[name]) == size


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("mixtral-8x7b", 83_886_080),  # 4 x 4096 x 128 x (32 + 8)
        ("mixtral-8x22b", 176_160_768),  # 4 x 6144 x 128 x (48 + 8)
        ("llama-3-8b", 83_886_080),  # as mixtral-8x7b
        ("llama-3-70b", 301_989_888),  # 4 x 8192 x 128 x (64 + 8)
        ("qwen3-30b-a3b", 37_748_736),  # 4 x 2048 x 128 x (32 + 4)
        ("dbrx", 176_160_768),  # as mixtral-8x22b
        ("grok-1", 176_160_768),  # as mixtral-8x22b
    ],
)
def test_projections_cost_two_flops_per_weight(name: str, flops: int) -> None:
    """Q and output: hidden x q_heads x head_dim each; K and V: hidden x kv_heads x head_dim each."""
    assert projection_flops_per_token(MODELS[name]) == flops


@pytest.mark.parametrize(
    ("name", "visit", "gate", "per_token"),
    [
        # 6 x 4096 x 14336; 2 x 4096 x 8; two visits and the gate
        ("mixtral-8x7b", 352_321_536, 65_536, 704_708_608),
        # 6 x 6144 x 16384; 2 x 6144 x 8; two visits
        ("mixtral-8x22b", 603_979_776, 98_304, 1_208_057_856),
        # 6 x 4096 x 14336; one MLP
        ("llama-3-8b", 352_321_536, 0, 352_321_536),
        # 6 x 8192 x 28672
        ("llama-3-70b", 1_409_286_144, 0, 1_409_286_144),
        # 6 x 2048 x 768; 2 x 2048 x 128; eight visits
        ("qwen3-30b-a3b", 9_437_184, 524_288, 76_021_760),
        # 6 x 6144 x 10752; 2 x 6144 x 16; four visits
        ("dbrx", 396_361_728, 196_608, 1_585_643_520),
        # 6 x 6144 x 32768; 2 x 6144 x 8; two visits
        ("grok-1", 1_207_959_552, 98_304, 2_416_017_408),
    ],
)
def test_a_feed_forward_is_three_matrices_per_visit(name: str, visit: int, gate: int, per_token: int) -> None:
    assert expert_flops_per_visit(MODELS[name]) == visit
    assert gate_flops_per_token(MODELS[name]) == gate
    assert ffn_flops_per_token(MODELS[name]) == per_token


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        # Published (with embeddings): 12.9, 39, 8.0, 70.6, 3.3, 36, 86 billion active parameters.
        # Here without embedding and vocabulary projection.
        ("mixtral-8x7b", 12.618),  # 32 x (41_943_040 + 2 x 176_160_768 + 32_768)
        ("mixtral-8x22b", 38.758),  # 56 x (88_080_384 + 2 x 301_989_888 + 49_152)
        ("llama-3-8b", 6.979),  # 32 x (41_943_040 + 176_160_768)
        ("llama-3-70b", 68.451),  # 80 x (150_994_944 + 704_643_072)
        ("qwen3-30b-a3b", 2.730),  # 48 x (18_874_368 + 8 x 4_718_592 + 262_144)
        ("dbrx", 35.236),  # 40 x (88_080_384 + 4 x 198_180_864 + 98_304)
        ("grok-1", 82.950),  # 64 x (88_080_384 + 2 x 603_979_776 + 49_152)
    ],
)
def test_active_weights_are_attention_gate_and_chosen_experts(name: str, billions: float) -> None:
    assert active_parameter_bytes(MODELS[name]) / 2 / 1e9 == pytest.approx(billions, abs=0.0005)


def test_attention_scores_grow_with_the_context(mixtral: ModelShape) -> None:
    """3 new tokens after 10 cached ones look at 11 + 12 + 13 = 36 keys; 4 x 32 x 128 FLOPs each."""
    flops = score_flops(mixtral, new_tokens=3, prefix_tokens=10)
    assert flops == 36 * 16_384


def test_a_reused_prefix_saves_scores_but_stays_attended_to(mixtral: ModelShape) -> None:
    """All 13 tokens alone: 1 + .. + 13 = 91 keys; the 10 cached ones' own 55 are what is saved."""
    whole = score_flops(mixtral, new_tokens=13, prefix_tokens=0)
    cached = score_flops(mixtral, new_tokens=10, prefix_tokens=0)
    assert whole == 91 * 16_384
    assert whole - cached == score_flops(mixtral, new_tokens=3, prefix_tokens=10)


def test_every_model_is_filed_under_its_own_name() -> None:
    assert [shape.name for shape in MODELS.values()] == list(MODELS)


@pytest.mark.parametrize(
    ("name", "peak", "memory"),
    [("rtx-3090", 71e12, 936e9), ("a100", 312e12, 2039e9), ("h100", 989.4e12, 3350e9)],
)
def test_gpus_have_their_dense_16_bit_peak(name: str, peak: float, memory: float) -> None:
    gpu = GPUS[name]
    assert (gpu.name, gpu.peak_flops, gpu.memory_bytes_per_s) == (name, peak, memory)
    assert gpu.efficiency == ASSUMED_EFFICIENCY == 0.5


def test_prefill_is_compute_bound_and_decode_memory_bound() -> None:
    """An A100 at half its 312 TFLOP/s does 156e12 FLOPs in a second, and reads 2039e9 B in one."""
    assert compute_s(GPUS["a100"], 156e12) == pytest.approx(1.0)
    assert memory_s(GPUS["a100"], 2039e9) == pytest.approx(1.0)


@pytest.fixture
def mixtral() -> ModelShape:
    return MODELS["mixtral-8x7b"]
