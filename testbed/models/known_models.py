"""Shapes of published models by name, as their configurations state them."""

from testbed.models.hf_harmless import PREDICTING
from testbed.models.shape import LatentAttention, ModelShape


def _shape(
    name: str,
    *,
    layers: int,
    hidden: int,
    heads: tuple[int, int],
    ffn: int,
    experts: int = 0,
    top_k: int = 0,
    head_dim: int = 128,
) -> ModelShape:
    return ModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        q_heads=heads[0],
        kv_heads=heads[1],
        head_dim=head_dim,
        ffn=ffn,
        experts=experts,
        top_k=top_k,
        bytes_per_element=2,
    )


_DEEPSEEK_V3 = ModelShape(
    name="deepseek-v3",
    layers=61,
    hidden=7168,
    q_heads=128,
    # As in its configuration: K and V have 128 heads once they are computed from the latent.
    kv_heads=128,
    head_dim=192,
    ffn=2048,
    experts=256,
    top_k=8,
    bytes_per_element=2,
    dense_layers=(0, 1, 2),
    dense_ffn=18432,
    shared_ffn=2048,
    latent=LatentAttention(q_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, v_dim=128),
    weight_bytes=1.0,  # FP8, as published
    notes=(f"num_nextn_predict_layers: {PREDICTING}",),
)

MODELS: dict[str, ModelShape] = {
    shape.name: shape
    for shape in (
        _shape("mixtral-8x7b", layers=32, hidden=4096, heads=(32, 8), ffn=14336, experts=8, top_k=2),
        _shape("mixtral-8x22b", layers=56, hidden=6144, heads=(48, 8), ffn=16384, experts=8, top_k=2),
        _shape("llama-3-8b", layers=32, hidden=4096, heads=(32, 8), ffn=14336),
        _shape("llama-3-70b", layers=80, hidden=8192, heads=(64, 8), ffn=28672),
        _shape("qwen2.5-32b", layers=64, hidden=5120, heads=(40, 8), ffn=27648),
        _shape("qwen2.5-72b", layers=80, hidden=8192, heads=(64, 8), ffn=29568),
        # Qwen3 states its head_dim; hidden / q_heads would give 64.
        _shape("qwen3-30b-a3b", layers=48, hidden=2048, heads=(32, 4), ffn=768, experts=128, top_k=8),
        _shape("qwen3-235b-a22b", layers=94, hidden=4096, heads=(64, 4), ffn=1536, experts=128, top_k=8),
        _shape("dbrx", layers=40, hidden=6144, heads=(48, 8), ffn=10752, experts=16, top_k=4),
        _shape("grok-1", layers=64, hidden=6144, heads=(48, 8), ffn=32768, experts=8, top_k=2),
        _DEEPSEEK_V3,
    )
}
"""Models by name: as on Hugging Face, in lower case, without the organisation. KV has 16 bits, and so have
weights unless stated otherwise."""
