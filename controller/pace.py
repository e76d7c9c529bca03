"""How far a batch is: where its slowest rank is."""

from collections.abc import Iterable


class Pace:
    """Which layer of a batch each of its ranks is at; -1 before the first.

    Replicas that share no collective run at their own pace: the first one at the end must not end the
    batch for the others. So the batch is where its slowest rank is.
    """

    __slots__ = ("_at", "_reached")

    def __init__(self, ranks: Iterable[int]) -> None:
        self._at = dict.fromkeys(ranks, -1)
        self._reached = -1

    def __contains__(self, rank: int) -> bool:
        return rank in self._at

    def begins(self, rank: int, layer: int) -> int | None:
        """`rank` begins `layer`. Returns the layer the batch has reached by that, None if it was there."""
        self._at[rank] = layer
        reached = min(self._at.values())
        if reached == self._reached:
            return None
        self._reached = reached
        return reached
