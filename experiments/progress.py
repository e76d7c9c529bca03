"""Showing how far a run is, on standard error: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from testbed.fabric import Progress

_LINE_EVERY_S = 3.0


class Display(Protocol):
    """Shows the progress of a run while it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def update(self, policy: str, state: Progress) -> None:
        """`policy` is now as far as `state` says."""
        ...


def display_for(console: Console) -> Display:
    return BarDisplay(console) if console.is_terminal else LineDisplay(console.print)


class BarDisplay:
    """One bar per policy."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.fields[policy]:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def update(self, policy: str, state: Progress) -> None:
        if policy not in self._tasks:
            for earlier in self._tasks.values():
                self._bars.stop_task(earlier)
            self._tasks[policy] = self._bars.add_task(state.phase, policy=policy, total=None)
        self._bars.update(
            self._tasks[policy],
            description=state.phase,
            completed=state.done,
            total=state.total or None,
        )


class LineDisplay:
    """A line when the phase changes, and every few seconds in between."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._last: tuple[str, str] | None = None
        self._written_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def update(self, policy: str, state: Progress) -> None:
        now_s = self._clock()
        if (policy, state.phase) == self._last and now_s - self._written_s < _LINE_EVERY_S:
            return
        self._last, self._written_s = (policy, state.phase), now_s
        count = f" {state.done}/{state.total}" if state.total else ""
        self._write(f"{policy}: {state.phase}{count} ({state.wall_s:.0f} s)")
