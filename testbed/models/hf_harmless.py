"""Keys of a `config.json` that are not read: harmless ones, those that are left out, and those refused.

The harmless keys are in `harmless_keys.txt`.
"""

import re
from pathlib import Path

HARMLESS = frozenset(
    key
    for line in Path(__file__).with_name("harmless_keys.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for key in line.split()
)

HARMLESS_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r".*_token_(ids?|index|offset)",
        r".*_token_id_list",
        r"(.*_)?(dropout|pdrop|layerdrop|drop_path_rate|dropout_(p|prob|rate|ratio))",
        r"summary_.*_dropout",
        r"(.*_)?(eps|epsilon)",
        r".*_eps(ilon)?_.*",
        r".*_loss_(coef|coeff|coefficient|weight|alpha)",
        r"(.*_)?(initializer|init)_(range|std|method|scale|factor|gain)",
        r".*initializer_(range|factor|cutoff_factor)",
        r"init(ial)?_std|initializer.*",
        # Kernels.
        r".*(flash_?att|xformers|memory_efficient).*|(use_)?fused?_.*",
        # Towers and projectors of other modalities; what reads their output is told in a note.
        r"(vision|visual|vit|image|img|video|audio|speech|mm|projector|aligner|speaker|talker|code2wav|token2wav)_.*",
        r"use_(image|video|audio|vision)_.*",
    )
)

OTHER_MODALITIES = re.compile(
    r".*(vision|visual|vit|image|img|video|audio|speech|talker|wav|projector|aligner|vq|perceiver|tower|embd_layer)"
    r".*"
)
"""A nested block whose key matches describes what is not the text decoder."""

PARTS = ("attn_config", "ffn_config", "moe")
TEXT_BLOCKS = (
    *("text_config", "llm_config", "language_config", "thinker_config", "text_model_config"),
    *("language_model_config", *PARTS),
)
"""Keys that hold the decoder of a model of several parts, the parts of a layer of DBRX, or the experts in
Mistral's own format."""

PREDICTING = "layers that predict further tokens are left out, with their KV"

NEUTRAL = {"compression_ratio": 1, "quantization_bit": 0, "mlp_type": "default"}
"""Keys that change nothing at one value, and are not known at any other."""

AUXILIARY = {
    "sparsity_config": "weights that are left out of a sparse matrix count in full",
    "num_nextn_predict_layers": PREDICTING,
    "num_mtp_modules": PREDICTING,
    "num_mtp_layers": PREDICTING,
    "mtp_num_hidden_layers": PREDICTING,
    "mtp_num_layers": PREDICTING,
    "mtp_transformer_layers": PREDICTING,
    "use_mtp": PREDICTING,
    "use_medusa": PREDICTING,
    "laurel_rank": "its matrices of low rank are left out",
    "hidden_size_per_layer_input": "inputs of their own for each layer are left out",
    "altup_num_inputs": "other copies of the hidden state are left out",
    "altup_active_idx": "",
    "altup_coef_clip": "",
    "altup_correct_scale": "",
    "mtp_use_dedicated_embeddings": "",
    "mtp_hidden_states_first": "",
    "mtp_hybrid_override_pattern": PREDICTING,
    "mtp_layers_block_type": PREDICTING,
    "share_q_dim": "queries count as a full matrix, so projections are an upper bound",
}
"""Parts that are small or do not take part in prefill: left out, and the note says so."""

REFUSED = {
    "compress_ratios": "KV that is compressed by layer is not modelled",
    "compress_rates": "KV that is compressed by layer is not modelled",
    "block_configs": "layers that differ in heads and widths in this way are not modelled",
    "block_types": "recurrent layers of this kind are not modelled",
    "lru_width": "recurrent layers of this kind are not modelled",
    "hybrid_layer_ids": "layers that share their weights are not modelled",
    "num_mem_blocks": "layers that share their weights are not modelled",
    "mamba_d_ssm": "attention and Mamba side by side in a layer are not modelled",
    "state_size": "no layer of this model is attention with a KV cache",
    "rwkv_version": "no layer of this model is attention with a KV cache",
    "attention_hidden_size": "no layer of this model is attention with a KV cache in the usual width",
    "routed_expert_hidden_size": "experts that work on a narrower hidden state are not modelled",
    "moe_hidden_size": "experts that work on a narrower hidden state are not modelled",
    "zero_expert_num": "experts without weights are not modelled",
    "o_lora_rank": "an output projection of low rank is not modelled",
    "hc_mult": "several residual streams are not modelled",
    "ffn_multipliers": "feed-forwards that differ between layers are not modelled",
    "num_query_heads": "heads that differ between layers in this way are not modelled",
    "qkv_multipliers": "heads that differ between layers in this way are not modelled",
    "use_double_wide_mlp": "feed-forwards that differ between layers are not modelled",
    "add_cross_attention": "cross-attention to another model is not modelled",
    "kv_source_layers": "KV that layers share in this way is not modelled",
    "num_key_value_layers": "KV that layers share in this way is not modelled",
    "index_kpool": "pooled index keys are not modelled",
    "attention_other_setting": "layers that differ in this way are not modelled",
    "pruned_heads": "layers that lack some of their heads are not modelled",
    "cross_attention_hidden_size": "cross-attention to another model is not modelled",
    "use_cache_quantization": "a quantised KV cache of this kind is not modelled",
}
"""Keys whose meaning is known and not modelled, and why."""
