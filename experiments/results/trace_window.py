"""The name of a Chrome trace, and which part of a run it shows: a window of model time."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from controller.units import NS_PER_S

IntArray = npt.NDArray[np.int64]

TRACE_FILE: Final = "trace.json.gz"
"""The Chrome trace of a policy, in its folder. Perfetto opens it as it is."""

_BINS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Window:
    """The model time from `from_ns` up to, and without, `until_ns` (None: the end of the run)."""

    from_ns: int = 0
    until_ns: int | None = None

    @classmethod
    def read(cls, text: str) -> "Window":
        """Read `A:B` in model seconds. Without A it begins with the run, without B it ends with it.

        Raises `ValueError`, which says what is wrong.
        """
        begin, colon, end = text.partition(":")
        if not colon:
            raise ValueError("wanted A:B in model seconds, for instance 1.5:2 or 3:")
        from_ns = _ns(begin) if begin.strip() else 0
        until_ns = _ns(end) if end.strip() else None
        if until_ns is not None and until_ns <= from_ns:
            raise ValueError("the window has to end after it begins")
        return cls(from_ns, until_ns)

    def has(self, starts_ns: IntArray, ends_ns: IntArray) -> npt.NDArray[np.bool_]:
        """Return which of the rows from `starts_ns` to `ends_ns` are under way in the window.

        A row that takes no time is under way at its start.
        """
        under_way = np.maximum(ends_ns, starts_ns + 1) > self.from_ns
        return under_way if self.until_ns is None else under_way & (starts_ns < self.until_ns)


def _ns(text: str) -> int:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"{text.strip()!r} is not a number of seconds") from None
    if not 0 <= seconds < 1e9:
        raise ValueError(f"{text.strip()} s is not a time in a run")
    return round(seconds * NS_PER_S)


class Density:
    """Counts the events of rows over a run, to find the window that shows most of some of them.

    It counts on a grid, so its memory does not grow with the rows. A bin has the events of the rows that
    begin in it, and those of the rows that end in it.
    """

    def __init__(self, duration_ns: int) -> None:
        self._width_ns = max(1, -(-max(1, duration_ns) // (_BINS - 1)))
        self._begun = np.zeros(_BINS, dtype=np.int64)
        self._over = np.zeros(_BINS, dtype=np.int64)

    def offer(self, starts_ns: IntArray, ends_ns: IntArray, events: IntArray) -> None:
        """Count rows from `starts_ns` to `ends_ns` that have so many `events`."""
        first, last = self._bins(starts_ns, ends_ns)
        self._begun += np.bincount(first, events, minlength=_BINS).astype(np.int64)
        self._over += np.bincount(last, events, minlength=_BINS).astype(np.int64)

    @property
    def events(self) -> int:
        """The events of all rows."""
        return int(self._begun.sum())

    def start_for(self, starts_ns: IntArray, ends_ns: IntArray, most: int) -> int:
        """Return from when on a window of at most `most` events holds most of these rows.

        It holds a row that begins and ends in it. If no row fits, the window is the one with most of them
        under way. Of windows that are as good, it is the earliest, because what delayed a row came before.
        Without rows, it is the beginning of the run.
        """
        before = np.concatenate(([0], np.cumsum(self._begun)))
        over = np.concatenate(([0], np.cumsum(self._over)))[:_BINS]
        # A window that begins with bin `a` goes up to, and without, bin `until[a]`, which grows with `a`.
        until = np.searchsorted(before, most + over, side="right") - 1
        fits = until > np.arange(_BINS)
        first, last = self._bins(starts_ns, ends_ns)
        for earliest, latest in (
            (np.searchsorted(until, last, side="right"), first),
            (np.searchsorted(until, first, side="right"), last),
        ):
            held = _covers(earliest, latest) * fits
            if held.any():
                return int(np.argmax(held)) * self._width_ns
        return 0

    def _bins(self, starts_ns: IntArray, ends_ns: IntArray) -> tuple[IntArray, IntArray]:
        """Return the bins in which rows begin and in which they were last under way."""
        first = np.clip(starts_ns // self._width_ns, 0, _BINS - 1)
        last = np.clip((ends_ns - 1) // self._width_ns, first, _BINS - 1)
        return first, last


def _covers(earliest: IntArray, latest: IntArray) -> IntArray:
    """Return how many of the ranges of bins, from `earliest` to `latest` each, have a bin."""
    some = earliest <= latest
    change = np.bincount(earliest[some], minlength=_BINS + 1)
    change[: _BINS + 1] -= np.bincount(latest[some] + 1, minlength=_BINS + 1)
    counts: IntArray = np.cumsum(change)[:_BINS]
    return counts
