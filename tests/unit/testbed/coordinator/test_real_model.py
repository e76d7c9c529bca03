"""What ranks are told of the model that they compute, and what is refused by name."""

from collections.abc import Callable

import msgspec
import pytest
from real_world import DENSE, MOE, real_job, request

from testbed.coordinator.real_model import real_model, refuse
from testbed.fabric import JobRefused
from testbed.job import Job
from testbed.models.shape import Attention, LatentAttention, OtherLayers, Recurrent, TokenIndex
from testbed.serving.system import ServingSystem
from workers.model.setup import RealModel, Shard
from workers.options import ComputeMode
from workers.plan import BatchPlan, CollectiveKind

PROMPT = request(0, 24, ())


def made(job: Job) -> RealModel:
    found = real_model(job)
    assert found is not None
    return found


def refused(job: Job) -> str:
    with pytest.raises(JobRefused) as error:
        refuse(job)
    return str(error.value).removeprefix("workers.compute: real layers (model) are not possible here: ")


def with_options(job: Job, section: str, **changed: object) -> Job:
    options = msgspec.structs.replace(getattr(job, section), **changed)
    return msgspec.structs.replace(job, **{section: options})


# --- what ranks are told ------------------------------------------------------------------------


def test_ranks_have_the_layers_of_their_stage_and_a_share_of_the_heads() -> None:
    """Four layers in two stages of two ranks; the decode rank 4 has everything."""
    model = made(real_job(DENSE, [PROMPT], units=1, per_unit=4, tp=2, pp=2))
    assert model.shards[1] == Shard(first_layer=0, end_layer=2, tp=2, tp_index=1)
    assert model.shards[2] == Shard(first_layer=2, end_layer=4, tp=2, tp_index=0)
    assert model.shards[4] == Shard(first_layer=0, end_layer=4)
    assert model.workers == ((4,),)
    assert list(model.shards[1].share(4)) == [2, 3]


def test_the_ranks_of_a_decode_worker_divide_the_heads() -> None:
    model = made(real_job(DENSE, [PROMPT], units=1, per_unit=2, decode=4, decode_tp=2))
    assert model.workers == ((2, 3), (4, 5))
    assert model.shards[5] == Shard(first_layer=0, end_layer=4, tp=2, tp_index=1)


def test_ranks_of_a_group_divide_the_experts_in_order() -> None:
    """Two stages of two groups of two ranks, which have four experts each."""
    model = made(real_job(MOE, [PROMPT], units=1, per_unit=8, ep=2, pp=2))
    assert [model.shards[rank].experts for rank in range(8)] == [(0, 4), (4, 8)] * 4
    assert model.decoder.expert_ways == 2
    assert (model.decoder.ffn, model.decoder.expert_ffn) == (0, 48)


def test_without_real_layers_or_without_requests_there_is_no_model() -> None:
    job = real_job(DENSE, [PROMPT], units=1, per_unit=2)
    assert real_model(with_options(job, "workers", compute=ComputeMode.TIMED)) is None
    assert real_model(msgspec.structs.replace(job, requests=())) is None


# --- what is refused ----------------------------------------------------------------------------

_LATENT = LatentAttention(q_rank=8, kv_rank=8, nope_dim=8, rope_dim=8, v_dim=8)
_STATE = Recurrent(kind="mamba", heads=4, weights=10, flops=1, state_bytes=64)
_WINDOWED = Attention(q_heads=8, kv_heads=4, head_dim=16, v_dim=16, window=4)

OF_MODEL: dict[str, tuple[dict[str, object], str]] = {
    "mla": ({"latent": _LATENT}, "latent attention (MLA)"),
    "index": ({"index": TokenIndex(heads=1, dim=8, top_k=4, key_bytes=12)}, "sparse attention"),
    "gate": ({"output_gate": True}, "a gate after attention"),
    "values": ({"v_dim": 8}, "values that are not as wide as keys"),
    "odd": ({"head_dim": 15}, "heads of an odd width"),
    "bare": ({"bare_layers": (1,)}, "layers without a feed-forward"),
    "fp8 weights": ({"weight_bytes": 1.0}, "of other than 16 bits"),
    "fp8 experts": ({"expert_bytes": 1.0}, "of other than 16 bits"),
    "fp8 cache": ({"kv_element_bytes": 1.0}, "of other than 16 bits"),
    "state": ({"other_layers": (OtherLayers(layers=(1,), mixer=_STATE),)}, "layers with a recurrent state"),
    "mixed": ({"other_layers": (OtherLayers(layers=(1,), mixer=_WINDOWED),)}, "differ in their attention"),
    "large": ({"ffn": 100_000}, "76,898,304 weights, too many for a CPU"),
}


@pytest.mark.parametrize("what", OF_MODEL)
def test_a_model_with_parts_that_are_not_computed_is_refused(what: str) -> None:
    """Weights of `large`: 4 x (3 x 64 x 128 + 3 x 64 x 100,000) = 76,898,304."""
    changed, told = OF_MODEL[what]
    model = msgspec.structs.replace(DENSE, **changed)
    job = real_job(DENSE, [PROMPT], units=1, per_unit=1)
    assert told in refused(msgspec.structs.replace(job, model=model))


OF_KEYS: dict[str, tuple[Callable[[], Job], str]] = {
    "bytes": (
        lambda: with_options(dense(), "scale", bytes_scale=0.5),
        "scale.bytes_scale is 0.5, and real tensors need 1",
    ),
    "block sizes": (
        lambda: real_job(
            DENSE,
            [PROMPT, msgspec.structs.replace(request(1, 24, ()), block_tokens=4)],
            units=1,
            per_unit=2,
        ),
        "the prompts have blocks of different sizes",
    ),
    "copies": (
        lambda: real_job(DENSE, [PROMPT], units=1, per_unit=8),
        "units.tp has to divide the 4 KV heads",
    ),
    "sequence": (
        lambda: real_job(DENSE, [request(0, 23, ())], units=1, per_unit=2, tp=1, sp=2),
        "with units.sp, prompts have to be a multiple of 2 tokens",
    ),
    "ulysses": (
        lambda: real_job(
            DENSE, [PROMPT], units=1, per_unit=8, tp=1, sp=8, sequence=CollectiveKind.ALL_TO_ALL
        ),
        "4 KV heads do not divide by units.sp and tp",
    ),
    "decode": (
        lambda: real_job(DENSE, [PROMPT], per_unit=2, decode=8, decode_tp=8),
        "units.decode_tp has to divide the 4 KV heads",
    ),
    "early": (lambda: with_options(dense(), "serving", fetch_early=True), "serving.fetch is queue"),
    "background": (lambda: with_options(dense(), "serving", decode_background=2), "decode_background"),
    "replay": (
        lambda: msgspec.structs.replace(dense(), plans=tuple(plans(dense()))),
        "serving.batches_of replays batches",
    ),
    "tp of experts": (lambda: real_job(MOE, [PROMPT], units=1, per_unit=4, tp=2), "units.tp is above 1"),
    "skew": (lambda: with_options(experts(), "serving", expert_skew=1.0), "units.expert_skew is above 0"),
    "long": (lambda: real_job(DENSE, [request(0, 200_000, ())], per_unit=2), "lower workload.requests"),
}


def dense() -> Job:
    return real_job(DENSE, [PROMPT], units=2, per_unit=2)


def experts() -> Job:
    return real_job(MOE, [PROMPT], units=1, per_unit=4)


def plans(job: Job) -> list[BatchPlan]:
    return [plan for plan in ServingSystem(job).arrive(0, PROMPT) if isinstance(plan, BatchPlan)]


@pytest.mark.parametrize("what", OF_KEYS)
def test_keys_that_real_layers_do_not_follow_are_refused(what: str) -> None:
    job, told = OF_KEYS[what]
    assert told in refused(job())


def test_tokens_whose_visits_do_not_divide_are_refused() -> None:
    """Two visits of a token divide among four ranks for two tokens, and among two ranks for any."""
    odd = request(0, 23, ())
    assert "only for a multiple of 2 tokens, and not all prompts" in refused(
        real_job(MOE, [odd], units=1, per_unit=4)
    )
    assert "not all chunks" in refused(with_options(experts(), "serving", chunk_tokens=15))
    refuse(real_job(MOE, [odd], units=1, per_unit=2))
