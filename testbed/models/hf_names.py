"""The keys of a `config.json` that this room understands. Families name one size differently."""

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HIDDEN = ("hidden_size", "n_embd", "n_embed", "d_model", "dim")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
KV_HEADS = (
    "num_key_value_heads",
    "num_kv_heads",
    "n_kv_heads",
    "kv_n_heads",
    "n_head_kv",
    "multi_query_group_num",
    "num_attention_groups",
    "num_query_groups",
)
HEAD_DIM = ("head_dim", "attention_head_dim", "kv_channels")
V_HEAD_DIM = ("v_head_dim",)
WINDOW = ("sliding_window", "sliding_window_size", "window_size", "attention_chunk_size")

FFN = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "hidden_dim", "ff_intermediate_size")
EXPANSION = ("expansion_ratio", "ff_factor")
EXPERT_FFN = ("moe_intermediate_size", "expert_ffn_hidden_size", "expert_hidden_dim")
DENSE_FFN = ("intermediate_size_mlp", "dense_intermediate_size", "prefix_dense_intermediate_size")
EXPERT_HIDDEN = ("moe_latent_size",)
EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
TOP_K = (
    "num_experts_per_tok",
    "experts_per_token",
    "num_experts_per_token",
    "moe_top_k",
    "moe_topk",
    "moe_k",
    "top_k_experts",
    "num_selected_experts",
)
SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert")
SHARED_FFN = (
    "shared_expert_intermediate_size",
    "shared_intermediate_size",
    "shared_experts_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "share_expert_dim",
)
FIRST_DENSE = ("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers", "moe_layer_num_skipped")
LAST_SPARSE = ("moe_layer_end_index",)
SPARSE_STEP = (
    "decoder_sparse_step",
    "interleave_moe_layer_step",
    "moe_layer_interval",
    "moe_layer_frequency",
    "route_every_n",
)
"""Every n-th layer is sparse, counted from one."""

SPARSE_LISTS = ("mlp_layer_types", "moe_layers", "moe_layer_freq", "mlp_only_layers")
OTHER_EXPERTS = (
    "use_moe",
    "is_moe",
    "enable_moe",
    "expert_layer_period",
    "expert_layer_offset",
    "residual_moe",
    "use_residual",
    "parallel_attn_mlp_res",
    "enable_moe_block",
    "use_mixed_mlp_moe",
)
ALL_OF_EXPERTS = (
    *(
        *EXPERTS,
        *TOP_K,
        *EXPERT_FFN,
        *EXPERT_HIDDEN,
        *DENSE_FFN,
        *SHARED,
        *SHARED_FFN,
        *FIRST_DENSE,
        *LAST_SPARSE,
    ),
    *(*SPARSE_STEP, *SPARSE_LISTS, *OTHER_EXPERTS),
)

LATENT = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "qk_head_dim", "use_mla")
INDEX = ("index_head_dim", "index_n_heads", "index_topk", "indexer_types")
WINDOWED_HEADS = (
    *("swa_num_attention_heads", "swa_num_key_value_heads", "swa_head_dim", "swa_v_head_dim"),
    "swa_attention_heads",
)
FULL_HEADS = ("per_layer_config", "global_head_dim", "num_global_key_value_heads", "attention_k_eq_v")
LAYER_KINDS = (
    *(
        "layer_types",
        "layers_block_type",
        "hybrid_override_pattern",
        "attn_type_list",
        "hybrid_layer_pattern",
        "linear_attn_config",
    ),
    *("full_attention_interval", "attn_layer_period", "attn_layer_offset", "attn_layer_indices"),
    *("full_attn_idxs", "attention_layers", "attention_types", "cross_attention_layers"),
    *(
        "sliding_window_pattern",
        "_sliding_window_pattern",
        "global_attn_every_n_layers",
        "global_attn_every_n",
    ),
    *("layer_switch", "full_attn_mod"),
    *("no_rope_layers", "no_rope_layer_interval", "max_window_layers", "use_sliding_window"),
)
SHARING = ("num_kv_shared_layers", "use_cla", "cla_share_factor")
RECURRENT = (
    *("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim"),
    *("linear_conv_kernel_dim", "linear_num_heads", "linear_head_dim"),
    *("mamba_d_state", "mamba_d_conv", "mamba_expand", "mamba_dt_rank", "mamba_n_heads", "mamba_d_head"),
    *("mamba_n_groups", "mamba_ssm_dtype", "mamba_ssm_cache_dtype", "conv_L_cache", "conv_dim"),
    *("conv_dim_out", "mamba_num_heads", "mamba_head_dim", "ssm_state_size", "n_groups", "conv_kernel"),
    *("expand", "time_step_rank"),
)

OTHERS = (
    *("model_type", "architectures", "is_encoder_decoder", "hidden_act", "hidden_activation"),
    *(
        "activation_function",
        "activation",
        "mlp_hidden_act",
        *EXPANSION,
        "multi_query",
        "multi_query_attention",
        "attn_type",
    ),
    *("new_decoder_architecture", "num_attention_heads_per_layer", "attn_output_gate"),
    *("causal", "use_bidirectional_attention", "use_gated_activation", "block_use_swiglu"),
    *("block_auto_adjust_ff_dim", "block_multiple_of", "block_ffn_dim_multiplier", "block_ff_dim"),
)
PRECISION = (
    *("torch_dtype", "dtype", "quantization_config", "compression_config", "quantization"),
    *("kv_cache_scheme", "kv_cache_quant_algo", "kv_cache_dtype", "expert_dtype", "hf_quant_config.json"),
    "cache_implementation",
)

KNOWN = frozenset(
    (
        *(*LAYERS, *HIDDEN, *HEADS, *KV_HEADS, *HEAD_DIM, *V_HEAD_DIM, *WINDOW, *FFN, *ALL_OF_EXPERTS),
        *(*LATENT, *INDEX, *WINDOWED_HEADS, *FULL_HEADS, *LAYER_KINDS, *SHARING, *RECURRENT),
        *(*OTHERS, *PRECISION),
    )
)
"""All keys that have a meaning here. One that a model has and nothing reads is refused (`hf_checks`)."""
