"""Paged memory for KV: pages of one size on a device, which are taken, shared and given back."""

import threading
from collections.abc import Sequence

import torch


class OutOfPages(RuntimeError):
    """A rank has no page left for the KV that its plans bring."""


class PagePool:
    """`pages` pages, each of `page_rows` rows of `row` elements, in each of `layers` layers. Thread-safe.

    A page has one number in all layers. It is free, or somebody holds it; whoever holds it together with
    others (`share`) gives it back like the others. What a page has in it when it is taken is not defined.

    Row r of page p in a layer is row `p * page_rows + r` of what `rows` returns. Whoever calls `gather` or
    `scatter` on a GPU does so on a stream, and gives pages back once that stream is through with them.
    """

    def __init__(
        self,
        layers: int,
        pages: int,
        page_rows: int,
        row: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.page_rows = page_rows
        self.device = device
        self._memory = torch.empty((layers, pages * page_rows, *row), dtype=dtype, device=device)
        self._pages = pages
        # The last one given back is the next one taken: it is the likeliest to be in a cache.
        self._free = list(range(pages - 1, -1, -1))
        self._holders = [0] * pages
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """How many pages nobody holds."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """`count` pages that nobody else holds. Raises `OutOfPages`, and takes none, if there are fewer."""
        with self._lock:
            if count > len(self._free):
                raise OutOfPages(
                    f"{count} pages of KV are wanted, and {len(self._free)} of {self._pages} are free"
                )
            taken = [self._free.pop() for _ in range(count)]
            for page in taken:
                self._holders[page] = 1
            return taken

    def share(self, pages: Sequence[int]) -> None:
        """Hold pages that somebody holds already. Raises `ValueError` for one that is free."""
        with self._lock:
            for page in pages:
                if not self._holders[page]:
                    raise ValueError(f"page {page} is free, so it cannot be shared")
                self._holders[page] += 1

    def give(self, pages: Sequence[int]) -> None:
        """Give pages back: each is free once its last holder has. Raises `ValueError` for one that is."""
        with self._lock:
            for page in pages:
                if not self._holders[page]:
                    raise ValueError(f"page {page} is free already")
                self._holders[page] -= 1
                if not self._holders[page]:
                    self._free.append(page)

    # --- contents -------------------------------------------------------------------------------

    def rows(self, layer: int) -> torch.Tensor:
        """All rows (pages * page_rows, *row) of a layer. This is the memory itself."""
        return self._memory[layer]

    def fill(self, pages: torch.Tensor, value: float) -> None:
        """Set every element of `pages` (on the device), in all layers."""
        self._memory.unflatten(1, (self._pages, self.page_rows)).index_fill_(1, pages, value)

    def gather(self, layer: int, rows: torch.Tensor) -> torch.Tensor:
        """The rows with these numbers (on the device), one after the other, in memory of their own."""
        return self._memory[layer].index_select(0, rows)

    def scatter(self, layer: int, rows: torch.Tensor, content: torch.Tensor) -> None:
        """Write `content` to the rows with these numbers, none of which may be there twice."""
        self._memory[layer].index_copy_(0, rows, content)
