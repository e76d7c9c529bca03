"""What a family's class in `transformers` adds to its files, as plain data. Families are `model_type`s."""

from collections.abc import Mapping
from typing import Any

UNGATED = (
    *("bloom", "codegen", "falcon", "gpt2", "gpt-sw3", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "mpt"),
    *("gpt_neox_japanese", "nemotron", "opt", "persimmon", "phi", "starcoder2", "xglm", "biogpt", "ctrl"),
    *("openai-gpt", "fuyu", "refinedweb", "refinedwebmodel"),
)
"""Families whose feed-forward has two matrices, not three."""

GATED = ("bitnet", "llama", "mistral", "minicpm")
"""Families whose feed-forward has three matrices whatever its activation is."""

TWO_WIDTHS = ("qwen", "molmo")
"""Families that state the widths of the two upper matrices of a gated feed-forward together."""

_DIFFUSION = "text that is made by diffusion, not token by token, is not modelled"

NOT_MODELLED = {
    "dream": _DIFFUSION,
    "llada": _DIFFUSION,
    "llada_moe": _DIFFUSION,
    "sdar": _DIFFUSION,
    "sdar_moe": _DIFFUSION,
    "jetmoe": "attention that has experts is not modelled",
    "phi4flash": "layers of this kind are not modelled",
    "longcat_flash": "layers with two attentions are not modelled",
    "openelm": "layers that differ in heads and widths are not modelled",
}
"""Families with a structure that no key tells of, and why they are refused."""

MULTI_HEAD = (
    *UNGATED,
    *("afmoe", "apertus", "arcee", "aria", "aria_text", "baichuan", "chameleon", "cohere", "cohere2"),
    *("cohere2_moe", "deepseek", "deepseek_v2", "diffllama", "flex_olmo", "granite", "granitemoe"),
    *("granitemoehybrid", "granitemoeshared", "hunyuan", "hunyuan_v1_dense", "hunyuan_v1_moe", "internlm"),
    *("internlm2", "jais2", "llama", "minicpm", "nanochat", "olmo", "olmo2", "olmo3", "olmo_hybrid", "olmoe"),
    *("orion", "phi3", "phi3small", "qwen", "yi", "llava", "llava_next", "vipllava", "stablelm_epoch"),
    *("arctic", "grok-1", "dots1", "internlm3", "bailing_moe", "skywork", "xverse", "aquila"),
)
"""Families whose class has as many KV heads as query heads if the file does not say."""

ALTERNATING = {
    "afmoe": 4,
    "cohere2": 4,
    "cohere2_moe": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3_text": 6,
    "gemma3n": 5,
    "gemma3n_text": 5,
    "gemma4": 6,
    "gemma4_text": 6,
    "gpt_oss": 2,
    "olmo3": 4,
    "vaultgemma": 2,
}
"""Families in which every n-th layer has no window, even if the file does not list them."""

CHUNKED = ("llama4", "llama4_text")
"""Families in which all but every fourth layer attend within a chunk of the prompt."""

WINDOW_EVERYWHERE = (
    *("mistral", "mixtral", "ministral", "phi3", "phimoe", "starcoder2", "mistral3", "pixtral", "phi3_v"),
    *("phi4mm", "phi4_multimodal", ""),
)
"""Families in which a window holds for every layer unless the file says otherwise."""

OUTPUT_GATED = ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "afmoe")
"""Families whose attention has a gate as wide as the queries."""

RECURRENT = {
    "bamba": "mamba2",
    "granitemoehybrid": "mamba2",
    "jamba": "mamba1",
    "minimax": "lightning",
    "minimax_m1": "lightning",
    "minimaxm1": "lightning",
    "minimaxtext01": "lightning",
    "minimax_text_01": "lightning",
    "kimi_linear": "kda",
    "lfm2": "conv",
    "lfm2_moe": "conv",
    "lfm2_vl": "conv",
    "nemotron_h": "mamba2",
    "olmo_hybrid": "delta",
    "qwen3_next": "delta",
    "qwen3_5": "delta",
    "qwen3_5_text": "delta",
    "qwen3_5_moe": "delta",
    "qwen3_5_moe_text": "delta",
}
"""What the layers without KV are, in families that have such layers."""

_GEMMA3: Mapping[str, Any] = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 4096,
}
_GEMMA3N: Mapping[str, Any] = {
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "sliding_window": 512,
    "num_kv_shared_layers": 15,
}
_QWEN: dict[str, Any] = {"use_sliding_window": False, "max_window_layers": 28}
_MIXTRAL: Mapping[str, Any] = {"num_key_value_heads": 8}

CLASS_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "bamba": {"num_key_value_heads": 8},
    "bitnet": {"num_key_value_heads": 5},
    "cwm": {"num_key_value_heads": 8},
    "ernie4_5": {"num_key_value_heads": 2, "head_dim": 128},
    "ernie4_5_moe": {"num_key_value_heads": 4},
    "exaone4": {"num_key_value_heads": 32},
    "exaone": {"num_key_value_heads": 8},
    "falcon": {"multi_query": True},
    "falcon_h1": {"num_key_value_heads": 8},
    "gemma": {"num_key_value_heads": 16, "head_dim": 256},
    "gemma2": {"num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096},
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "gemma3n": _GEMMA3N,
    "gemma3n_text": _GEMMA3N,
    "gemma4_text": {"num_key_value_heads": 4, "head_dim": 256, "sliding_window": 512},
    "glm": {"num_key_value_heads": 2, "head_dim": 128},
    "glm4": {"num_key_value_heads": 2, "head_dim": 128},
    "glm4_moe": {"num_key_value_heads": 8},
    "gpt_bigcode": {"multi_query": True},
    "gpt_oss": {"num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128},
    "helium": {"num_key_value_heads": 20, "head_dim": 128},
    "jamba": {"num_key_value_heads": 8},
    "lfm2": {"num_key_value_heads": 8},
    "lfm2_moe": {"num_key_value_heads": 8},
    "llama4_text": {"num_key_value_heads": 8, "head_dim": 128, "attention_chunk_size": 8192},
    "minimax": {"num_key_value_heads": 8},
    "minimax_m2": {"num_key_value_heads": 8, "head_dim": 128},
    "nemotron_h": {"num_key_value_heads": 8},
    "ministral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "ministral3": {"num_key_value_heads": 8, "head_dim": 128},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "mixtral": _MIXTRAL,
    "mllama": {"num_key_value_heads": 8},
    "mllama_text_model": {"num_key_value_heads": 8},
    "phi4_multimodal": {"num_key_value_heads": 8},
    "phimoe": {"num_key_value_heads": 8},
    "qwen2": _QWEN | {"num_key_value_heads": 32},
    "qwen2_moe": _QWEN | {"num_key_value_heads": 16},
    "qwen2_vl": _QWEN | {"num_key_value_heads": 8},
    "qwen2_5_vl": _QWEN | {"num_key_value_heads": 8},
    "qwen3": _QWEN | {"num_key_value_heads": 32, "head_dim": 128},
    "qwen3_moe": _QWEN | {"num_key_value_heads": 4},
    "qwen3_next": {"num_key_value_heads": 2, "head_dim": 256, "full_attention_interval": 4},
    "qwen3_5_text": {"num_key_value_heads": 4, "head_dim": 256, "full_attention_interval": 4},
    "qwen3_5_moe_text": {"num_key_value_heads": 2, "head_dim": 256, "full_attention_interval": 4},
    "seed_oss": {"num_key_value_heads": 8, "head_dim": 128},
    "smollm3": {"num_key_value_heads": 4},
    "stablelm": {"num_key_value_heads": 32},
    "starcoder2": {"num_key_value_heads": 2},
    "step3p7": {"num_key_value_heads": 8, "head_dim": 128},
    "qwen3_vl_text": {"num_key_value_heads": 32, "head_dim": 128},
    "qwen3_vl_moe_text": {"num_key_value_heads": 16},
}
"""Defaults of a family's class that its files may leave out and no other key implies."""

ENCODERS = (
    *("albert", "bert", "clip", "deberta", "distilbert", "electra", "modernbert", "roberta", "siglip", "vit"),
    *("eurobert", "esm", "nomic_bert", "t5", "bart", "marian", "pegasus", "whisper", "mt5"),
)
