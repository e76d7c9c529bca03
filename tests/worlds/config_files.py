"""The `config.json` of a model, as Hugging Face has it."""

import json
from pathlib import Path
from typing import Any

LLAMA_3_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
}
LLAMA: dict[str, Any] = LLAMA_3_8B | {"hidden_act": "silu", "num_hidden_layers": 8}
"""Eight layers of it, with the activation named."""


def write_config(file: Path, **changes: object) -> Path:
    """Write the one of Llama-3-8B, with some keys changed."""
    file.write_text(json.dumps(LLAMA_3_8B | changes))
    return file
