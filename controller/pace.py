"""How far a batch is: where its slowest rank is."""

from collections.abc import Iterable


class Pace:
    """Which layer of a batch each of its ranks is at; -1 before the first.

    Replicas that share no collective run at their own pace: the first one at the end must not end the
    batch for the others. So the batch is where its slowest rank is.
    """

    __slots__ = ("_at", "_reached", "_there")

    def __init__(self, ranks: Iterable[int]) -> None:
        self._at = dict.fromkeys(ranks, -1)
        self._reached = -1
        self._there = len(self._at)  # ranks that are at the layer the batch has reached

    def __contains__(self, rank: int) -> bool:
        return rank in self._at

    def begins(self, rank: int, layer: int) -> int | None:
        """`rank` begins `layer`. Returns the layer the batch has reached by that, None if it was there."""
        self._there -= self._at[rank] == self._reached
        self._at[rank] = layer
        self._there += layer == self._reached
        if self._there:
            return None
        layers = list(self._at.values())
        self._reached = min(layers)
        self._there = layers.count(self._reached)
        return self._reached
