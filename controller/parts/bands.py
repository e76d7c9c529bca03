"""Maps keys to a few levels: bands of equal traffic, learned from recent values.

For policies that order all flows, on fabrics that have only a few queues.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from controller.flow import Level

WINDOW = 512
"""How many recent values the bands are learned from."""


@dataclass(slots=True)
class _Group:
    """Active names with one key. They share a level, which is an index into the levels."""

    index: int
    names: dict[str, None] = field(default_factory=dict)


class Bands:
    """Gives each active name one of `levels` (highest first) by where its key ranks.

    The *key* orders the active names, smallest first. The *value* is ranked among the last `window`
    values that were given to `observe`. It is the key itself, unless keys grow with time, as deadlines
    do; then it is how far off the key is. Each observed value comes with its bytes. If the share f of
    all bytes in the window is at smaller values (bytes at equal values count half), the level is number
    `floor(K * f)`, counted from 0. Before anything is observed, it is the middle one: P3 of six.

    Active names are never inverted: a smaller key is never on a lower level, and equal keys are on the
    same level. So `enter` keeps a name between the levels of its neighbours, which do not move. If there
    are levels strictly between those two, the name gets one of them.

    Keys are finite. A call takes time logarithmic in the number of active names, plus a short move of
    memory and a sum over the window.
    """

    def __init__(self, levels: Sequence[Level], window: int = WINDOW) -> None:
        """Raises `ValueError` without levels, or for a window below 1."""
        if not levels:
            raise ValueError("there are no levels to give")
        if window < 1:
            raise ValueError(f"the window must hold at least 1 value, not {window}")
        self._levels = tuple(levels)
        self._seen: deque[tuple[float, int]] = deque(maxlen=window)
        self._ranked: list[float] = []  # the values seen, ascending, and their bytes in the same order
        self._bytes: list[int] = []
        self._all_bytes = 0
        self._keys: list[float] = []  # of the groups, ascending
        self._groups: dict[float, _Group] = {}
        self._key_of: dict[str, float] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._key_of

    def observe(self, value: float, size_bytes: int) -> None:
        """Add `value` to the window, with `size_bytes` (at least 1) as its weight. No active name moves."""
        weight = max(1, size_bytes)
        if len(self._seen) == self._seen.maxlen:
            self._forget(*self._seen[0])
        self._seen.append((value, weight))
        at = bisect_right(self._ranked, value)
        self._ranked.insert(at, value)
        self._bytes.insert(at, weight)
        self._all_bytes += weight

    def share_before(self, value: float) -> float | None:
        """The share of observed bytes at smaller values; equal ones count half. None before any."""
        if not self._ranked:
            return None
        return self._twice_before(value) / (2 * self._all_bytes)

    def by_rank(self, value: float) -> Level:
        """The level of `value` by its rank alone, regardless of the active names."""
        return self._levels[self._index(value)]

    def enter(self, name: str, key: float, value: float | None = None) -> Level:
        """Make `name` active and return its level. `value` defaults to `key`, and is not observed.

        Raises `ValueError` if `name` is active. To change a key, leave and enter again.
        """
        if name in self._key_of:
            raise ValueError(f"{name!r} has a band already")
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(self._between(key, key if value is None else value))
            insort(self._keys, key)
        group.names[name] = None
        self._key_of[name] = key
        return self._levels[group.index]

    def leave(self, name: str) -> None:
        """`name` is no longer active. If it was not, nothing happens."""
        key = self._key_of.pop(name, None)
        if key is None:
            return
        names = self._groups[key].names
        del names[name]
        if not names:
            del self._groups[key], self._keys[bisect_left(self._keys, key)]

    def key(self, name: str) -> float:
        """The key of an active name; raises `KeyError` for others."""
        return self._key_of[name]

    def level(self, name: str) -> Level:
        """The level of an active name; raises `KeyError` for others."""
        return self._levels[self._groups[self._key_of[name]].index]

    def reband(self, now: float) -> dict[str, Level]:
        """Move every active name to the level of `key - now`. Returns those that moved, in order of keys.

        All values change by the same amount, so no two names are inverted.
        """
        before = self._cuts(lambda key: self._groups[key].index)
        after = self._cuts(lambda key: self._index(key - now))
        moved: dict[str, Level] = {}
        done = 0
        # Only keys between the old and the new place of a cut change their level.
        for old, new in zip(before, after, strict=True):
            for key in self._keys[max(done, min(old, new)) : max(old, new)]:
                group = self._groups[key]
                group.index = self._index(key - now)
                moved |= dict.fromkeys(group.names, self._levels[group.index])
            done = max(done, old, new)
        return moved

    def _cuts(self, index_of: Callable[[float], int]) -> list[int]:
        """The index, in the ascending keys, at which each level but the first begins."""
        return [bisect_left(self._keys, index, key=index_of) for index in range(1, len(self._levels))]

    def _between(self, key: float, value: float) -> int:
        at = bisect_left(self._keys, key)
        highest = self._groups[self._keys[at - 1]].index if at else 0
        lowest = self._groups[self._keys[at]].index if at < len(self._keys) else len(self._levels) - 1
        index = max(highest, min(self._index(value), lowest))
        if 0 < at < len(self._keys) and lowest - highest > 1:
            index = max(highest + 1, min(index, lowest - 1))  # a level between both neighbours is free
        return index

    def _index(self, value: float) -> int:
        if not self._ranked:
            return (len(self._levels) - 1) // 2
        # In integers, so that a share of exactly 1/3 does not become a little less.
        index = len(self._levels) * self._twice_before(value) // (2 * self._all_bytes)
        return min(index, len(self._levels) - 1)

    def _twice_before(self, value: float) -> int:
        """Twice the bytes at smaller values, plus the bytes at equal ones."""
        below, up_to = bisect_left(self._ranked, value), bisect_right(self._ranked, value)
        return 2 * sum(self._bytes[:below]) + sum(self._bytes[below:up_to])

    def _forget(self, value: float, weight: int) -> None:
        first, last = bisect_left(self._ranked, value), bisect_right(self._ranked, value)
        at = self._bytes.index(weight, first, last)
        del self._ranked[at], self._bytes[at]
        self._all_bytes -= weight
