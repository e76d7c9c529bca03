"""How long a process, or a part of it, was kept from running: it is stopped, starved, or busy elsewhere."""

import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn

import msgspec

from controller.units import NS_PER_S

BEAT_S: Final = 0.1
"""Wall seconds between two beats: short next to a pause that matters, and next to nothing for the CPU."""

_BEAT_NS = round(BEAT_S * NS_PER_S)


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing ran for `wall_ns`, from CLOCK_MONOTONIC `begin_wall_ns` on."""

    begin_wall_ns: int
    wall_ns: int


_KEPT: Final = 16


class Pulse:
    """Keeps the longest pauses between beats. Thread-safe; whoever beats says what time it is.

    A beat is due every `BEAT_S`. A pause is by how much one comes late.
    """

    def __init__(self, wall_ns: int) -> None:
        self._lock = threading.Lock()
        self._last_ns = wall_ns
        self._longest = [Pause(begin_wall_ns=wall_ns, wall_ns=0)]

    def restart(self, wall_ns: int) -> None:
        """Forget all pauses so far, for instance those of a set-up."""
        with self._lock:
            self._last_ns = wall_ns
            self._longest = [Pause(begin_wall_ns=wall_ns, wall_ns=0)]

    def beat(self, wall_ns: int) -> None:
        with self._lock:
            self._longest = self._until(wall_ns)
            self._last_ns = wall_ns

    def longest(self, wall_ns: int) -> Pause:
        """The longest pause until `wall_ns`, a pause included that has not ended."""
        return self.longest_ones(wall_ns)[0]

    def longest_ones(self, wall_ns: int) -> tuple[Pause, ...]:
        """The longest pauses until `wall_ns`, the longest first: at least one, and at most `_KEPT`."""
        with self._lock:
            return tuple(self._until(wall_ns))

    def _until(self, wall_ns: int) -> list[Pause]:
        late_ns = wall_ns - self._last_ns - _BEAT_NS
        if late_ns <= 0 or (len(self._longest) == _KEPT and late_ns <= self._longest[-1].wall_ns):
            return self._longest
        found = [*self._longest, Pause(begin_wall_ns=self._last_ns, wall_ns=late_ns)]
        return sorted(found, key=lambda pause: -pause.wall_ns)[:_KEPT]


def keep_beating(pulse: Pulse, sleep: Callable[[float], object] = time.sleep) -> NoReturn:
    """Beat forever. A program with threads of its own kind passes their `sleep`."""
    while True:
        sleep(BEAT_S)
        pulse.beat(time.monotonic_ns())


def start_beating(pulse: Pulse) -> None:
    threading.Thread(target=keep_beating, args=(pulse,), name="pulse", daemon=True).start()
