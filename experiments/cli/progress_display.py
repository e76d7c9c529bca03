"""The progress of a run or a sweep on standard error: bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from experiments.run.all_jobs import DONE, KEPT
from experiments.sweep.progress import SweepProgress
from testbed.fabric import RunProgress

_LINE_EVERY_S = 3.0


class _Entered(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class _OnBars:
    """Shows bars, with `first` as their first column, on the terminal inside its `with` block."""

    def __init__(self, console: Console, first: str) -> None:
        self._bars = Bars(
            TextColumn(first),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
        )

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


class _OnLines:
    """Writes lines, so it has nothing to start or stop."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


class Display(_Entered, Protocol):
    """Shows the progress of a run inside its `with` block."""

    def update(self, policy: str, state: RunProgress) -> None:
        """Show that the run of `policy` is at `state`."""
        ...


def display_for(console: Console) -> Display:
    return BarDisplay(console) if console.is_terminal else LineDisplay(console.print)


class BarDisplay(_OnBars):
    """One bar per policy."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "{task.fields[policy]:>8}")
        self._tasks: dict[str, TaskID] = {}

    def update(self, policy: str, state: RunProgress) -> None:
        if policy not in self._tasks:
            self._tasks[policy] = self._bars.add_task(state.phase, policy=policy, total=None)
        self._bars.update(
            self._tasks[policy],
            description=state.phase,
            completed=state.done,
            total=state.total or None,
        )
        if state.phase in (DONE, KEPT):
            self._bars.stop_task(self._tasks[policy])


class LineDisplay(_OnLines):
    """Writes a line when the phase of a policy changes, and every few seconds in between."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._written: dict[str, tuple[str, float]] = {}  # the last phase of each policy, and when

    def update(self, policy: str, state: RunProgress) -> None:
        now_s = self._clock()
        phase, written_s = self._written.get(policy, ("", 0.0))
        if phase == state.phase and now_s - written_s < _LINE_EVERY_S:
            return
        self._written[policy] = state.phase, now_s
        count = f" {state.done}/{state.total}" if state.total else ""
        self._write(f"{policy}: {state.phase}{count} ({state.wall_s:.0f} s)")


class SweepDisplay(_Entered, Protocol):
    """Shows the progress of a sweep inside its `with` block. Another thread may call `update`."""

    def update(self, state: SweepProgress) -> None: ...


def sweep_display_for(console: Console) -> SweepDisplay:
    return SweepBar(console) if console.is_terminal else SweepLines(console.print)


class SweepBar(_OnBars):
    """One bar for all cells."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "cells")
        self._task = self._bars.add_task("", total=None)

    def update(self, state: SweepProgress) -> None:
        said = ", ".join(_outlook(state))
        self._bars.update(self._task, description=said, completed=state.over, total=state.total)


class SweepLines(_OnLines):
    """Writes a line when a cell has ended, but at most every few seconds."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._told: SweepProgress | None = None

    def update(self, state: SweepProgress) -> None:
        told = self._told
        if told is not None and state.over < state.total and state.wall_s - told.wall_s < _LINE_EVERY_S:
            return
        if told is not None and state.over == told.over:
            return
        self._told = state
        parts = [f"{state.over}/{state.total} cells", f"{rough_time(state.wall_s)} so far", *_outlook(state)]
        self._write(", ".join(parts))


def _outlook(state: SweepProgress) -> list[str]:
    parts = [f"{state.failed} failed"] if state.failed else []
    if state.left_s is not None and state.over < state.total:
        parts.append(f"about {rough_time(state.left_s)} left")
    return parts


def rough_time(seconds: float) -> str:
    """Return a wall time as text: "45 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
