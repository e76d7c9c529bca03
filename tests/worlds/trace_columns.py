"""Small traces by columns."""

import numpy as np

from controller.units import NS_PER_S
from experiments.traces.columns import Columns
from experiments.traces.lengths import Lengths


def columns(
    *prompts: tuple[int, ...],
    times_s: tuple[float, ...] | None = None,
    tokens: tuple[int, ...] | None = None,
    block_tokens: int = 10,
) -> Columns:
    """Requests with these blocks: by default a second apart, and with 5 tokens after the blocks."""
    at = np.array(range(len(prompts)) if times_s is None else times_s, dtype=np.float64)
    lengths = [len(prompt) * block_tokens + 5 for prompt in prompts] if tokens is None else tokens
    return Columns(
        time_ns=(at * NS_PER_S).astype(np.int64),
        prompt_tokens=Lengths.of(np.array(lengths, dtype=np.int64)),
        output_tokens=Lengths.of(np.ones(len(prompts), dtype=np.int64)),
        blocks=np.array([block for prompt in prompts for block in prompt], dtype=np.int64),
        starts=np.cumsum([0, *map(len, prompts)]),
        block_tokens=block_tokens,
    )
