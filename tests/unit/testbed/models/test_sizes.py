"""Bytes and FLOPs of the published shapes, worked out by hand."""

import msgspec
import pytest

from testbed.models.gpus import ASSUMED_EFFICIENCY, GPUS, compute_s, memory_s, step_s
from testbed.models.known_models import MODELS
from testbed.models.shape import ModelShape
from testbed.models.sizes import (
    activation_bytes_per_token,
    active_parameter_bytes,
    active_parameters,
    all_to_all_bytes_per_token,
    attention_weight_bytes,
    expert_flops_per_visit,
    expert_weight_bytes,
    ffn_flops_per_token,
    gate_flops_per_token,
    gate_weight_bytes,
    is_sparse,
    kv_bytes_per_token,
    kv_bytes_per_token_layer,
    layer_kinds,
    mlp_flops_per_token,
    mlp_weight_bytes,
    projection_flops_per_token,
    score_flops,
    shared_flops_per_token,
    shared_weight_bytes,
    total_parameters,
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
        ("qwen2.5-32b", 4096, 262_144),  # x 64
        ("qwen2.5-72b", 4096, 327_680),  # x 80
        ("qwen3-235b-a22b", 2048, 192_512),  # x 94
    ],
)
def test_kv_bytes_are_two_vectors_per_kv_head(name: str, per_layer: int, in_all: int) -> None:
    assert kv_bytes_per_token_layer(MODELS[name], 0) == per_layer
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
        ("qwen2.5-32b", 0),
        ("qwen2.5-72b", 0),
        ("qwen3-235b-a22b", 65_536),  # 8 x 4096 x 2
        ("deepseek-v3", 114_688),  # 8 x 7168 x 2: activations have 16 bits, though weights have 8
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
        ("qwen2.5-32b", 125_829_120),  # 4 x 5120 x 128 x (40 + 8)
        ("qwen2.5-72b", 301_989_888),  # as llama-3-70b
        ("qwen3-235b-a22b", 142_606_336),  # 4 x 4096 x 128 x (64 + 4)
    ],
)
def test_projections_cost_two_flops_per_weight(name: str, flops: int) -> None:
    """Q and output: hidden x q_heads x head_dim each; K and V: hidden x kv_heads x head_dim each."""
    assert projection_flops_per_token(MODELS[name], 0) == flops


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
        # 6 x 5120 x 27648
        ("qwen2.5-32b", 849_346_560, 0, 849_346_560),
        # 6 x 8192 x 29568
        ("qwen2.5-72b", 1_453_326_336, 0, 1_453_326_336),
        # 6 x 4096 x 1536; 2 x 4096 x 128; eight visits
        ("qwen3-235b-a22b", 37_748_736, 1_048_576, 303_038_464),
        # 6 x 7168 x 2048; 2 x 7168 x 256; eight visits and the shared expert, which is as large as another
        ("deepseek-v3", 88_080_384, 3_670_016, 796_393_472),
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
        ("qwen2.5-32b", 31.206),  # 64 x (62_914_560 + 424_673_280)
        ("qwen2.5-72b", 70.213),  # 80 x (150_994_944 + 726_663_168)
        ("qwen3-235b-a22b", 20.945),  # 94 x (71_303_168 + 8 x 18_874_368 + 524_288)
    ],
)
def test_active_weights_are_attention_gate_and_chosen_experts(name: str, billions: float) -> None:
    assert active_parameters(MODELS[name]) / 1e9 == pytest.approx(billions, abs=0.0005)
    assert active_parameter_bytes(MODELS[name]) == 2 * active_parameters(MODELS[name])


@pytest.mark.parametrize(
    ("name", "embeddings", "total", "active"),
    [
        # Vocabulary x hidden, twice if the embedding and the projection to the vocabulary are two matrices;
        # then the published billions.
        ("mixtral-8x7b", 2 * 32_000 * 4096, 46.7, 12.9),
        ("mixtral-8x22b", 2 * 32_000 * 6144, 141, 39),
        ("llama-3-8b", 2 * 128_256 * 4096, 8.03, 8.03),
        ("llama-3-70b", 2 * 128_256 * 8192, 70.6, 70.6),
        ("qwen2.5-32b", 2 * 152_064 * 5120, 32.5, 32.5),
        ("qwen2.5-72b", 2 * 152_064 * 8192, 72.7, 72.7),
        ("qwen3-30b-a3b", 2 * 151_936 * 2048, 30.5, 3.3),
        ("qwen3-235b-a22b", 2 * 151_936 * 4096, 235, 22),
        ("dbrx", 2 * 100_352 * 6144, 132, 36),
        ("grok-1", 131_072 * 6144, 314, None),
        ("deepseek-v3", 2 * 129_280 * 7168, 671, 37),
    ],
)
def test_parameters_are_those_published(
    name: str, embeddings: int, total: float, active: float | None
) -> None:
    """Within 2 %: published numbers are rounded, and norms and biases are left out here."""
    model = MODELS[name]
    assert (total_parameters(model) + embeddings) / 1e9 == pytest.approx(total, rel=0.02)
    if active is not None:
        assert (active_parameters(model) + embeddings) / 1e9 == pytest.approx(active, rel=0.02)


def test_latent_attention_keeps_one_vector_per_token_for_all_heads() -> None:
    """512 elements of the latent and 64 with a position, 2 B each; not 2 x 128 heads x 128 x 2 B."""
    model = MODELS["deepseek-v3"]
    assert kv_bytes_per_token_layer(model, 0) == 1152
    assert kv_bytes_per_token(model) == 70_272  # x 61


def test_latent_attention_projects_down_and_up_again() -> None:
    """Q 7168 x 1536, 1536 x 128 x 192; KV 7168 x 576, 512 x 128 x (128 + 128); output 128 x 128 x 7168."""
    model = MODELS["deepseek-v3"]
    weights = 11_010_048 + 37_748_736 + 4_128_768 + 16_777_216 + 117_440_512
    assert weights == 187_105_280
    assert projection_flops_per_token(model, 0) == 2 * weights
    assert attention_weight_bytes(model, 0) == weights  # FP8


def test_latent_queries_may_come_straight_from_the_hidden_state() -> None:
    """As in DeepSeek-V2-Lite: one matrix of 7168 x 128 x 192 instead of the first two."""
    model = MODELS["deepseek-v3"]
    assert model.latent is not None
    straight = msgspec.structs.replace(model, latent=msgspec.structs.replace(model.latent, q_rank=0))
    weights = 176_160_768 + 4_128_768 + 16_777_216 + 117_440_512
    assert projection_flops_per_token(straight, 0) == 2 * weights


def test_latent_scores_have_wider_keys_than_values() -> None:
    """3 new tokens after 10 look at 36 keys; 2 x 128 x (192 + 128) FLOPs each."""
    assert score_flops(MODELS["deepseek-v3"], 0, new_tokens=3, prefix_tokens=10) == 36 * 81_920


def test_the_first_layers_of_deepseek_are_dense() -> None:
    model = MODELS["deepseek-v3"]
    assert layer_kinds(model) == ((0, 1, 2), tuple(range(3, 61)))
    assert [is_sparse(model, layer) for layer in (0, 2, 3, 60)] == [False, False, True, True]
    assert mlp_flops_per_token(model) == 792_723_456  # 6 x 7168 x 18432
    assert mlp_weight_bytes(model) == 396_361_728  # 3 x 7168 x 18432, 1 B each
    assert shared_flops_per_token(model) == 88_080_384  # 6 x 7168 x 2048
    assert shared_weight_bytes(model) == expert_weight_bytes(model) == 44_040_192  # half of it
    assert gate_weight_bytes(model) == 1_835_008  # 7168 x 256
    # 61 x 187_105_280 + 3 x 396_361_728 + 58 x (8 x 44_040_192 + 44_040_192 + 1_835_008)
    assert active_parameter_bytes(model) == 35_697_917_952
    # and 256 experts instead of 8 in each of the 58
    assert total_parameters(model) == 35_697_917_952 + 58 * 248 * 44_040_192


@pytest.mark.parametrize(
    ("name", "attention", "mlp", "expert", "gate"),
    [
        ("mixtral-8x7b", 83_886_080, 0, 352_321_536, 65_536),
        ("mixtral-8x22b", 176_160_768, 0, 603_979_776, 98_304),
        ("llama-3-8b", 83_886_080, 352_321_536, 0, 0),
        ("llama-3-70b", 301_989_888, 1_409_286_144, 0, 0),
        ("qwen2.5-32b", 125_829_120, 849_346_560, 0, 0),
        ("qwen2.5-72b", 301_989_888, 1_453_326_336, 0, 0),
        ("qwen3-30b-a3b", 37_748_736, 0, 9_437_184, 524_288),
        ("qwen3-235b-a22b", 142_606_336, 0, 37_748_736, 1_048_576),
        ("dbrx", 176_160_768, 0, 396_361_728, 196_608),
        ("grok-1", 176_160_768, 0, 1_207_959_552, 98_304),
    ],
)
def test_weights_of_16_bits_take_as_many_bytes_as_a_token_takes_flops(
    name: str, attention: int, mlp: int, expert: int, gate: int
) -> None:
    """2 B and 2 FLOPs per weight, so the numbers are those of the tests above."""
    model = MODELS[name]
    assert attention_weight_bytes(model, 0) == attention
    assert mlp_weight_bytes(model) == mlp_flops_per_token(model) == mlp
    assert expert_weight_bytes(model) == expert
    assert gate_weight_bytes(model) == gate
    assert shared_weight_bytes(model) == shared_flops_per_token(model) == 0
    assert layer_kinds(model) == (tuple(range(model.layers)),)
    assert is_sparse(model, 0) == (expert > 0)


def test_layers_that_are_dense_in_between_are_one_kind() -> None:
    """Every other one of eight layers is dense, from the second on."""
    model = msgspec.structs.replace(MODELS["mixtral-8x7b"], layers=8, dense_layers=(1, 3, 5, 7), dense_ffn=1)
    assert layer_kinds(model) == ((0, 2, 4, 6), (1, 3, 5, 7))


def test_an_ungated_feed_forward_has_two_matrices(mixtral: ModelShape) -> None:
    model = msgspec.structs.replace(mixtral, gated=False)
    assert expert_flops_per_visit(model) == 4 * 4096 * 14336


def test_kv_may_be_kept_in_fewer_bits(mixtral: ModelShape) -> None:
    model = msgspec.structs.replace(mixtral, kv_element_bytes=1.0)
    assert kv_bytes_per_token_layer(model, 0) == 2048
    assert activation_bytes_per_token(model) == 8192


@pytest.mark.parametrize(
    ("new", "prefix", "keys"),
    [
        (3, 10, 36),  # 11 + 12 + 13, all within the window of 16
        (6, 10, 81),  # 11 + .. + 16
        (8, 10, 113),  # 11 + .. + 16, then 16 twice
        (3, 20, 48),  # 16 each
        (20, 0, 200),  # 1 + .. + 16 = 136, then 16 four times
        (0, 20, 0),
    ],
)
def test_a_token_looks_no_further_back_than_the_window(
    mixtral: ModelShape, new: int, prefix: int, keys: int
) -> None:
    model = msgspec.structs.replace(mixtral, window=16)
    assert keys == sum(min(c, 16) for c in range(prefix + 1, prefix + new + 1))
    assert score_flops(model, 0, new_tokens=new, prefix_tokens=prefix) == keys * 16_384


def test_attention_scores_grow_with_the_context(mixtral: ModelShape) -> None:
    """3 new tokens after 10 cached ones look at 11 + 12 + 13 = 36 keys; 4 x 32 x 128 FLOPs each."""
    flops = score_flops(mixtral, 0, new_tokens=3, prefix_tokens=10)
    assert flops == 36 * 16_384


def test_a_reused_prefix_saves_scores_but_stays_attended_to(mixtral: ModelShape) -> None:
    """All 13 tokens look at 1 + .. + 13 = 91 keys; the 55 keys of the 10 cached tokens are saved."""
    whole = score_flops(mixtral, 0, new_tokens=13, prefix_tokens=0)
    cached = score_flops(mixtral, 0, new_tokens=10, prefix_tokens=0)
    assert whole == 91 * 16_384
    assert whole - cached == score_flops(mixtral, 0, new_tokens=3, prefix_tokens=10)


def test_every_model_is_filed_under_its_own_name() -> None:
    assert [shape.name for shape in MODELS.values()] == list(MODELS)


@pytest.mark.parametrize(
    ("name", "peak", "memory"),
    [
        ("rtx-3090", 71e12, 936e9),
        ("a100", 312e12, 2039e9),
        ("h100", 989.4e12, 3350e9),
        ("h200", 989.4e12, 4800e9),
    ],
)
def test_gpus_have_their_dense_16_bit_peak(name: str, peak: float, memory: float) -> None:
    gpu = GPUS[name]
    assert (gpu.name, gpu.peak_flops, gpu.memory_bytes_per_s) == (name, peak, memory)
    assert gpu.efficiency == ASSUMED_EFFICIENCY == 0.5


def test_prefill_is_compute_bound_and_decode_memory_bound() -> None:
    """In one second an A100 does 156e12 FLOPs, at half of its 312 TFLOP/s, or reads 2039e9 B."""
    assert compute_s(GPUS["a100"], 156e12) == pytest.approx(1.0)
    assert memory_s(GPUS["a100"], 2039e9) == pytest.approx(1.0)


def test_a_step_takes_as_long_as_what_is_slower() -> None:
    """156e12 FLOP/s and 2039e9 B/s: 1.56e12 FLOPs take 10 ms, 2.039e9 B 1 ms."""
    gpu = GPUS["a100"]
    assert step_s(gpu, flops=1.56e12, read_bytes=2.039e9) == pytest.approx(0.010)
    assert step_s(gpu, flops=1.56e10, read_bytes=2.039e9) == pytest.approx(0.001)


def test_a_launch_comes_on_top_where_there_is_work() -> None:
    """A quarter of the bandwidth: 4 ms for 2.039e9 B."""
    gpu = msgspec.structs.replace(GPUS["a100"], memory_efficiency=0.25, launch_s=0.002)
    assert step_s(gpu, flops=0, read_bytes=2.039e9) == pytest.approx(0.006)
    assert step_s(gpu, flops=1.56e12, read_bytes=0) == pytest.approx(0.012)
    assert step_s(gpu, flops=0, read_bytes=0) == 0


@pytest.fixture
def mixtral() -> ModelShape:
    return MODELS["mixtral-8x7b"]
