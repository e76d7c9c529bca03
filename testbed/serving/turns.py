"""Whose turn it is among equals."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Turns(Generic[K]):
    """Remembers who was taken when. Of equals, whoever was taken longest ago comes first.

    A rule that gives every tie to the first gives it all the work as long as there is little to do: then
    every queue is empty, and everything ties.
    """

    def __init__(self) -> None:
        self._last: dict[K, int] = {}
        self._taken = 0

    def last(self, key: K) -> int:
        """When `key` was taken last, larger for later; 0 if it never was."""
        return self._last.get(key, 0)

    def take(self, key: K) -> None:
        self._taken += 1
        self._last[key] = self._taken

    def take_least(self, among: Iterable[K], cost: Callable[[K], Any]) -> K:
        """Take the one of `among` that costs least. A tie goes to the one taken longest ago, or the first."""
        chosen = min(among, key=lambda key: (cost(key), self.last(key)))
        self.take(chosen)
        return chosen

    def copy(self) -> "Turns[K]":
        """The same turns, which can go on by themselves."""
        other: Turns[K] = Turns()
        other._last = dict(self._last)
        other._taken = self._taken
        return other
