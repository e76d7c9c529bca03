"""The KV that a rank has, by request and by cached block."""

import torch

from workers.model.manifest import KvPiece
from workers.model.parts import WIRE
from workers.model.setup import Decoder, Prompt, Shard


class KvStore:
    """The KV of the layers and heads of `shard`, for every request that the rank has worked on.

    A request's KV is (layers, 2, heads, tokens, d). What has not been computed or received is NaN, and so is
    everything that follows from it. Nothing is evicted: the serving system decides what is still cached, and
    never asks for more. Threads may read what another thread has written before.
    """

    def __init__(self, decoder: Decoder, shard: Shard) -> None:
        self._decoder = decoder
        self._shard = shard
        self._heads = shard.share(decoder.kv_heads)
        self._requests: dict[int, torch.Tensor] = {}
        self._blocks: dict[int, int] = {}

    def open(self, request: int, tokens: int) -> None:
        """Make room for the KV of a prompt."""
        sizes = len(self._shard.layers), 2, len(self._heads), tokens, self._decoder.head_dim
        self._requests[request] = torch.full(sizes, torch.nan, dtype=WIRE)

    def all_of(self, request: int) -> torch.Tensor:
        """A request's KV in all layers of the shard."""
        return self._requests[request]

    def of(self, request: int, layer: int) -> torch.Tensor:
        """A request's KV (2, heads, tokens, d) in one layer, to read and to write."""
        return self._requests[request][layer - self._shard.first_layer]

    # --- cached blocks --------------------------------------------------------------------------

    def cache(self, request: int, prompt: Prompt, tokens: int) -> None:
        """The first `tokens` of a prompt have their KV in all layers: their full blocks can be reused."""
        for block, _, _ in prompt.spans(0, tokens):
            self._blocks[block] = request

    def reuse(self, request: int, prompt: Prompt, begin: int, end: int) -> None:
        """Copy the KV of full blocks, the tokens from `begin` to `end`, from the requests that have it.

        A block is at the same place in all prompts, because its id stands for everything before it, too.
        Raises `KeyError` for a block that is not cached.
        """
        mine = self._requests[request]
        for block, first, last in prompt.spans(begin, end):
            mine[:, :, :, first:last] = self._requests[self._blocks[block]][:, :, :, first:last]

    # --- what transfers carry -------------------------------------------------------------------

    def packed(self, piece: KvPiece) -> torch.Tensor:
        """The bytes of `piece`: the KV (2, heads, tokens, d) of its places."""
        kv = self.of(piece.request, piece.layer)[:, self._rows(piece)]
        return kv[:, :, _index(piece)].flatten().view(torch.uint8)

    def packed_blocks(self, piece: KvPiece, prompt: Prompt) -> torch.Tensor:
        """The same for a request that the rank has not worked on: from the cached blocks of its prompt.

        Raises `KeyError` for a block that is not cached.
        """
        there = _index(piece)
        blocks = [torch.empty(2, len(piece.heads), 0, self._decoder.head_dim, dtype=WIRE)]
        for block in (there // prompt.block_tokens).unique_consecutive().tolist():
            kv = self.of(self._blocks[prompt.blocks[block]], piece.layer)[:, self._rows(piece)]
            blocks.append(kv[:, :, there[there // prompt.block_tokens == block]])
        return torch.cat(blocks, dim=2).flatten().view(torch.uint8)

    def unpack(self, piece: KvPiece, content: torch.Tensor) -> None:
        """Write the bytes of `piece` where they belong."""
        kv = self.of(piece.request, piece.layer)[:, self._rows(piece)]
        kv[:, :, _index(piece)] = content.view(WIRE).view(2, len(piece.heads), piece.tokens, -1)

    def _rows(self, piece: KvPiece) -> slice:
        return slice(piece.heads.start - self._heads.start, piece.heads.stop - self._heads.start)


def _index(piece: KvPiece) -> torch.Tensor:
    """The places of a piece, one span after the other."""
    return torch.tensor([place for span in piece.places for place in span], dtype=torch.int64)
