"""For how long each part of a run has said nothing."""

from collections.abc import Iterable

PATIENCE_S = 10.0
"""Wall seconds of silence, or of standing still, after which a part that reports every second is given up."""

_LONGEST_LOOK_S = 1.0


class Silences:
    """Wall seconds since each part was last heard. Pure: whoever looks says what time it is.

    A look adds at most a second. If whoever looks was stopped itself, what was said meanwhile still waits to
    be read, and nobody is to blame.
    """

    def __init__(self, parts: Iterable[str], wall_s: float) -> None:
        self._silent_s = dict.fromkeys(parts, 0.0)
        self._looked_s = wall_s
        self.watched_s = 0.0
        """What all looks have added: the clock by which parts are silent."""

    def heard(self, part: str) -> None:
        self._silent_s[part] = 0.0

    def look(self, wall_s: float) -> None:
        passed_s = min(wall_s - self._looked_s, _LONGEST_LOOK_S)
        self._looked_s = wall_s
        self.watched_s += passed_s
        for part in self._silent_s:
            self._silent_s[part] += passed_s

    def silent_s(self, part: str) -> float:
        """For how long a part has said nothing; 0 for one that was never heard."""
        return self._silent_s.get(part, 0.0)

    def too_long(self) -> list[str]:
        """The parts that have said nothing for longer than `PATIENCE_S`."""
        return [part for part, silent_s in self._silent_s.items() if silent_s > PATIENCE_S]
