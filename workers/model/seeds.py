"""Numbers that follow from a name: the same in every process and on every machine."""

from hashlib import blake2b

import torch

from workers.model.setup import Prompt

VOCABULARY = 512
"""How many different tokens there are. No transfer depends on it."""


def generator(name: str) -> torch.Generator:
    """A generator whose numbers depend on `name` alone."""
    seed = int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "big")
    return torch.Generator().manual_seed(seed)


def matrix(name: str, rows: int, columns: int) -> torch.Tensor:
    """A random matrix of `rows` x `columns` in 32 bits. It maps a vector to one of the same magnitude."""
    return torch.randn(rows, columns, generator=generator(name)) / columns**0.5


def token_ids(request: int, prompt: Prompt) -> torch.Tensor:
    """The tokens of a prompt, as 64-bit integers below `VOCABULARY`.

    Those of a full block follow from its id, so prompts that share blocks begin with the same tokens. The
    others, at the end, follow from the number of the request.
    """
    parts = [_drawn(f"block {block}", prompt.block_tokens) for block in prompt.blocks]
    left = prompt.tokens - len(prompt.blocks) * prompt.block_tokens
    return torch.cat([*parts, _drawn(f"request {request}", left)])


def _drawn(name: str, count: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (count,), generator=generator(name))
