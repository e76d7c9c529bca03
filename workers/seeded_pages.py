"""Seeded bytes in paged memory: what lanes of a GPU gather, and where they scatter what arrives.

Without real layers, nobody computes the KV that transfers stand for. So that a GPU does with it what it does
with real KV, seeded bytes are in pages of the size that a block has in one layer, in an order of their own.
A gather puts them into the order of `Payloads` again, so both ends of a lane need not be on the same kind of
device. On a CPU there are no such pages: `Payloads` has the bytes in a row already.
"""

import torch

from workers.pages import PagePool
from workers.payload import BLOCK_BYTES, Payloads
from workers.streams import host_memory, numbers, settle

_WORD_BYTES = 8
"""Pages are moved as whole words."""


class SeededPages:
    """The bytes of `payloads` in pages of `page_bytes`, rounded up to whole words; and pages to receive in.

    There are enough of the latter for chunks of `chunk_bytes` on `lanes` lanes. Work is put on the stream of
    whoever calls: all calls of `gather` on one, all calls of `scatter` on one.
    """

    def __init__(
        self, payloads: Payloads, device: torch.device, *, page_bytes: int, chunk_bytes: int, lanes: int
    ) -> None:
        self._device = device
        self._words = max(1, -(-page_bytes // _WORD_BYTES))
        self._page_bytes = self._words * _WORD_BYTES
        held = -(-2 * BLOCK_BYTES // self._page_bytes)
        self._sent = self._pool(held)
        # In any order, because the pages of a request lie anywhere. Page i of the bytes is page table[i].
        self._table = torch.randperm(held, generator=torch.Generator().manual_seed(0)).to(device)
        seeded = torch.zeros(held * self._page_bytes, dtype=torch.uint8)
        seeded[: 2 * BLOCK_BYTES] = payloads.twice
        words = seeded.view(torch.int64).view(held, self._words).to(device)
        self._sent.scatter(0, self._table, words)
        settle(device)  # lanes read it on other streams
        self._received = self._pool(max(1, lanes) * self._pages(chunk_bytes))

    def _pool(self, pages: int) -> PagePool:
        return PagePool(1, pages, 1, (self._words,), torch.int64, self._device)

    def _pages(self, size_bytes: int) -> int:
        return -(-size_bytes // self._page_bytes)

    def gather(self, name: str, size_bytes: int) -> torch.Tensor:
        """The payload called `name`, as in `Payloads.of`, in memory of the device."""
        begin = Payloads.start(name)
        found: list[torch.Tensor] = []
        while size_bytes > 0:
            size = min(size_bytes, 2 * BLOCK_BYTES - begin)
            first, end = begin // self._page_bytes, self._pages(begin + size)
            pages = self._sent.gather(0, self._table[first:end]).flatten().view(torch.uint8)
            offset = begin - first * self._page_bytes
            found.append(pages[offset : offset + size])
            size_bytes -= size
            begin = (begin + size) % BLOCK_BYTES
        return found[0] if len(found) == 1 else torch.cat(found)

    def scatter(self, piece: torch.Tensor, *, read_back: bool) -> torch.Tensor | None:
        """Copy a chunk of the host's memory into pages.

        The pages are free again at once, as nobody needs the bytes. Whoever gets them next scatters on the
        same stream, and so later. With `read_back`, what is in the pages is returned first, in memory of the
        host. It is there once the stream is through.
        """
        pages = self._received.take(self._pages(len(piece)))
        words = torch.empty((len(pages), self._words), dtype=torch.int64, device=self._device)
        words.view(-1).view(torch.uint8)[: len(piece)].copy_(piece, non_blocking=True)
        rows = numbers(pages, self._device)
        self._received.scatter(0, rows, words)
        read = None
        if read_back:
            read = host_memory(len(piece), self._device)
            found = self._received.gather(0, rows).flatten().view(torch.uint8)[: len(piece)]
            read.copy_(found, non_blocking=True)
        self._received.give(pages)
        return read
