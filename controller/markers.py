"""The ranks that mark packets: each set of changes goes to the rank that sends, which confirms it."""

from collections.abc import Sequence

from controller.flow import Level
from controller.marks import MarkChange
from controller.protocol import Away, Mark, Marked, encode
from controller.wire import Hub


class Markers:
    """Tells ranks how to mark their packets: a `controller.shell.Enforcer`. `dscps` are by level."""

    def __init__(self, hub: Hub, dscps: Sequence[int]) -> None:
        self._hub = hub
        self._dscps = tuple(dscps)
        self._open: set[tuple[str, Level]] = set()
        self.flow_mods = 0
        self.barriers = 0

    @property
    def ready(self) -> int:
        return 0

    @property
    def away(self) -> tuple[str, ...]:
        return ()

    @property
    def outages(self) -> tuple[Away, ...]:
        """None: there is no switch to be without."""
        return ()

    @property
    def waiting(self) -> bool:
        return bool(self._open)

    def send(self, mods: Sequence[MarkChange], token: tuple[str, Level] | None) -> None:
        """Send changes to one level, which are all of one rank, because one rank sends on a lane."""
        if not mods:
            return
        first = mods[0]
        if any((mod.rank, mod.level) != (first.rank, first.level) for mod in mods):
            raise ValueError(f"changes of several ranks or levels at once: {mods}")
        if token is not None:
            self._open.add(token)
            self.barriers += 1
        self.flow_mods += len(mods)
        mark = Mark(
            lane="" if token is None else token[0],
            level=first.level,
            dscp=self._dscps[first.level],
            connections=tuple(mod.connection for mod in mods),
        )
        self._hub.send(str(first.rank), encode(mark))

    def marked(self, message: Marked) -> list[tuple[str, Level]]:
        """Raises `ValueError` if nobody was told to mark this."""
        token = (message.lane, message.level)
        if token not in self._open:
            raise ValueError(f"lane {message.lane!r} was marked with {message.level.name}, unasked")
        self._open.discard(token)
        return [token]
