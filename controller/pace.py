"""The progress of a batch: the layer of its slowest rank."""

from collections.abc import Iterable


class Pace:
    """The layer that each rank of a batch is at; -1 before the first.

    Replicas that share no collective run at their own pace, and the first to finish must not end the
    batch for the others. So the batch is at the layer of its slowest rank.
    """

    __slots__ = ("_at", "_reached", "_there")

    def __init__(self, ranks: Iterable[int]) -> None:
        self._at = dict.fromkeys(ranks, -1)
        self._reached = -1
        self._there = len(self._at)  # ranks that are at the layer the batch has reached

    def __contains__(self, rank: int) -> bool:
        return rank in self._at

    def begins(self, rank: int, layer: int) -> int | None:
        """`rank` begins `layer`. Returns the layer that the batch reaches by this, or None if it stays."""
        self._there -= self._at[rank] == self._reached
        self._at[rank] = layer
        self._there += layer == self._reached
        if self._there:
            return None
        layers = list(self._at.values())
        self._reached = min(layers)
        self._there = layers.count(self._reached)
        return self._reached
