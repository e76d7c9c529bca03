"""The KV that a rank has: in pages, which requests and cached blocks hold."""

import threading

import torch

from workers.model.manifest import KvPiece
from workers.model.parts import WIRE
from workers.model.setup import Decoder, Prompt, Shard
from workers.pages import PagePool
from workers.streams import numbers, settle


class KvStore:
    """The KV of the layers and heads of `shard`, in `pages` pages of `block_tokens` tokens. Thread-safe.

    A page has the KV (block_tokens, 2, heads, d) of a block in each layer of the shard. The block table of a
    request says which page has its block i. Requests that begin with the same cached blocks share their
    pages. A page that was just taken is NaN, and so is everything that follows from it: KV of an earlier
    holder can never pass for that of this one.

    Cached blocks keep their pages until the run ends, because the serving system tells nobody what it evicts.

    Pages are on `device`, and layers on the CPU. On a GPU, whoever calls does so on a stream (`Stream.here`),
    and lets others know of what was written once that stream is through.
    """

    def __init__(
        self, decoder: Decoder, shard: Shard, *, pages: int, block_tokens: int, device: torch.device
    ) -> None:
        self._decoder = decoder
        self._shard = shard
        self._heads = shard.share(decoder.kv_heads)
        row = 2, len(self._heads), decoder.head_dim
        self._pool = PagePool(len(shard.layers), pages, block_tokens, row, WIRE, device)
        self._tables: dict[int, list[int]] = {}
        self._blocks: dict[int, int] = {}
        self._lock = threading.Lock()

    @property
    def free_pages(self) -> int:
        return self._pool.free

    def __contains__(self, request: int) -> bool:
        return request in self._tables

    def table(self, request: int) -> list[int]:
        """The block table of a request: this is what the store goes by."""
        return self._tables[request]

    def open(self, request: int, prompt: Prompt, reused: tuple[tuple[int, int], ...] = ()) -> None:
        """Give a prompt its pages. The full blocks in the spans (begin, end) of `reused` are cached here.

        Raises `KeyError` for a block that is not, `OutOfPages` if there are not enough pages, and
        `ValueError` for a request that is open. Then nothing has changed.
        """
        with self._lock:
            if request in self._tables:
                raise ValueError(f"request {request} has its pages already")
            shared = {
                first // self._pool.page_rows: self._blocks[block]
                for span in reused
                for block, first, _ in prompt.spans(*span)
            }
            count = -(-prompt.tokens // self._pool.page_rows)
            own = self._pool.take(count - len(shared))
            self._pool.share(list(shared.values()))
            fresh = iter(own)
            self._tables[request] = [shared[i] if i in shared else next(fresh) for i in range(count)]
        self._pool.fill(self._index(own), torch.nan)
        settle(self._pool.device)  # other threads may write to the pages on other streams

    def close(self, request: int) -> None:
        """A request needs its KV no more. Its cached blocks stay."""
        with self._lock:
            self._pool.give(self._tables.pop(request))

    def cache(self, request: int, prompt: Prompt, tokens: int) -> None:
        """The first `tokens` of a prompt have their KV in all layers: their full blocks can be reused."""
        with self._lock:
            table = self._tables[request]
            for block, first, _ in prompt.spans(0, tokens):
                if block not in self._blocks:
                    page = table[first // self._pool.page_rows]
                    self._pool.share([page])
                    self._blocks[block] = page

    # --- what layers read and write -------------------------------------------------------------

    def read(self, request: int, layer: int, places: torch.Tensor) -> torch.Tensor:
        """The KV (2, heads, t, d) of a request's tokens at `places` (t), gathered from its pages."""
        kv = self._gather(layer, self._rows(self._tables[request], places.to(self._pool.device)))
        return kv.permute(1, 2, 0, 3).cpu()

    def write(self, request: int, layer: int, places: torch.Tensor, kv: torch.Tensor) -> None:
        """Write the KV (2, heads, t, d) of a request's tokens at `places` (t) into its pages."""
        device = self._pool.device
        rows = self._rows(self._tables[request], places.to(device))
        self._pool.scatter(layer - self._shard.first_layer, rows, kv.permute(2, 0, 1, 3).to(device))
        settle(device)  # lanes read it on other streams

    def all_of(self, request: int, tokens: int) -> torch.Tensor:
        """The KV (layers, 2, heads, tokens, d) of a request's first tokens, out of its pages."""
        places = torch.arange(tokens)
        return torch.stack([self.read(request, layer, places) for layer in self._shard.layers])

    # --- what transfers carry -------------------------------------------------------------------

    def packed(self, piece: KvPiece) -> torch.Tensor:
        """The bytes of `piece`: the KV (tokens, 2, heads, d) of its places, gathered on the device."""
        return self._packed(piece, self._tables[piece.request])

    def packed_blocks(self, piece: KvPiece, prompt: Prompt) -> torch.Tensor:
        """The same for a request that the rank has not worked on: from the cached blocks of its prompt.

        Raises `KeyError` for a block that is not cached.
        """
        size = self._pool.page_rows
        wanted = {place // size for span in piece.places for place in span}
        with self._lock:
            # Pages of blocks that are not asked for are never looked at.
            table = [self._blocks[block] if i in wanted else 0 for i, block in enumerate(prompt.blocks)]
        return self._packed(piece, table)

    def unpack(self, piece: KvPiece, content: torch.Tensor) -> None:
        """Scatter the bytes of `piece` (on the device) into the pages of its request."""
        rows = self._rows(self._tables[piece.request], self._places(piece))
        kv = content.view(WIRE).view(piece.tokens, 2, len(piece.heads), self._decoder.head_dim)
        mine = self._pool.rows(piece.layer - self._shard.first_layer)[:, :, self._own(piece)]
        mine.index_copy_(0, rows, kv)

    def _packed(self, piece: KvPiece, table: list[int]) -> torch.Tensor:
        kv = self._gather(piece.layer, self._rows(table, self._places(piece)))
        return kv[:, :, self._own(piece)].flatten().view(torch.uint8)

    def _gather(self, layer: int, rows: torch.Tensor) -> torch.Tensor:
        return self._pool.gather(layer - self._shard.first_layer, rows)

    def _rows(self, table: list[int], places: torch.Tensor) -> torch.Tensor:
        size = self._pool.page_rows
        return self._index(table)[places // size] * size + places % size

    def _index(self, pages: list[int]) -> torch.Tensor:
        return numbers(pages, self._pool.device)

    def _own(self, piece: KvPiece) -> slice:
        return slice(piece.heads.start - self._heads.start, piece.heads.stop - self._heads.start)

    def _places(self, piece: KvPiece) -> torch.Tensor:
        """The places of a piece, one span after the other."""
        device = self._pool.device
        return torch.cat(
            [torch.empty(0, dtype=torch.int64, device=device)]
            + [torch.arange(each.start, each.stop, each.step, device=device) for each in piece.places]
        )
