"""Background transfers: what moves beside requests, such as KV that is offloaded or migrated. Pure."""

import heapq

from controller.flow import Stage, Transfer
from testbed.job import Background

_PREFIX = "background."


class BackgroundTransfers:
    """Each pair of ranks sends one transfer after another, for as long as the run lasts.

    A transfer begins one period after the one before it has begun, or when that has arrived, whichever is
    later. So a pair never has more than one on its way, and what the network does not carry is not made up
    for. The pairs begin at even distances within the first period.
    """

    def __init__(self, background: Background | None) -> None:
        self._background = background
        pairs = () if background is None else background.pairs
        self._due = [(self._period_ns * i // len(pairs), i) for i in range(len(pairs))]  # a heap
        self._on_their_way: dict[str, tuple[int, int]] = {}  # when the next of the pair is due, and the pair
        self._sent = [0] * len(pairs)

    @property
    def idle(self) -> bool:
        """Whether no transfer is on its way."""
        return not self._on_their_way

    @property
    def due_ns(self) -> int | None:
        """When the next transfer begins; None while all pairs have one on its way, and without pairs."""
        return self._due[0][0] if self._due else None

    def begin(self, now_ns: int) -> tuple[Transfer, ...]:
        """Begin the transfers that are due, and return them."""
        begun = []
        while self._due and self._due[0][0] <= now_ns:
            _, pair = heapq.heappop(self._due)
            begun.append(self._transfer(pair))
            self._on_their_way[begun[-1].id] = now_ns + self._period_ns, pair
            self._sent[pair] += 1
        return tuple(begun)

    def arrived(self, flow: str) -> None:
        """A flow has arrived. Flows that are none of these transfers are ignored."""
        if flow in self._on_their_way:
            heapq.heappush(self._due, self._on_their_way.pop(flow))

    @property
    def _period_ns(self) -> int:
        return 0 if self._background is None else self._background.period_ns

    def _transfer(self, pair: int) -> Transfer:
        assert self._background is not None
        src, dst = self._background.pairs[pair]
        name = f"{_PREFIX}{src}-{dst}.{self._sent[pair]}"
        return Transfer(
            id=name,
            stage=Stage.BACKGROUND,
            src=src,
            dst=dst,
            size_bytes=self._background.size_bytes,
            coflow=name,
        )
