"""Groups of rows of a long run, each dropped as soon as it is complete."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

Key = TypeVar("Key")
Group = TypeVar("Group")


class OpenGroups(Generic[Key, Group]):
    """Groups of rows that may not be complete yet, by unit and batch.

    A unit works on at most `at_once` batches at a time. So the groups of a batch are complete when rows of
    that many later batches of the unit have come. They are then passed to `close` and dropped. Groups
    without a known unit stay until the end.
    """

    def __init__(
        self, units: Mapping[str, str], at_once: int, close: Callable[[dict[Key, Group]], None]
    ) -> None:
        self._units = units
        self._at_once = at_once
        self._close = close
        self._open: dict[str | None, dict[str | None, dict[Key, Group]]] = {}

    def of(self, batch: str | None) -> dict[Key, Group]:
        """The groups of a batch, to which the caller adds."""
        unit = self._units.get(batch) if batch is not None else None
        known = self._open.setdefault(unit, {})
        batch = batch if unit is not None else None
        if batch not in known:
            if len(known) == self._at_once:
                self._close(known.pop(next(iter(known))))
            known[batch] = {}
        return known[batch]

    def close(self) -> None:
        """There are no more rows: all groups are complete."""
        for batches in self._open.values():
            for groups in batches.values():
                self._close(groups)
        self._open.clear()
