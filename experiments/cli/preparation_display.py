"""The progress of what may take long before a run, on standard error."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.cli.progress_display import Display

_MB = 10**6
_SHOWN_AFTER_S = 1.0


@contextlib.contextmanager
def reading_shown(display: "Display | None" = None) -> Iterator[None]:
    """Inside, show how far the reading of a trace is, unless it takes less than a second.

    It is shown on `display`, which is shown already, or on one of its own.
    """
    from experiments.trace_formats.text_file import reading_told
    from testbed.fabric import RunProgress

    with contextlib.ExitStack() as ending:

        def listen(path: Path, done: int, size: int, wall_s: float) -> None:
            nonlocal display
            if display is None:
                from rich.console import Console

                from experiments.cli.progress_display import display_for

                display = ending.enter_context(display_for(Console(stderr=True)))
            state = RunProgress(phase="reading, MB", done=done // _MB, total=size // _MB, wall_s=wall_s)
            display.update(path.name, state)

        with reading_told(listen):
            yield


@contextlib.contextmanager
def estimating_shown(display: "Display") -> Iterator[None]:
    """Inside, show how far the estimate of a capacity is, unless it takes less than a second."""
    from experiments.resolve.capacity import estimating_told
    from experiments.run.all_jobs import DONE
    from testbed.fabric import RunProgress

    def listen(state: RunProgress) -> None:
        if state.wall_s >= _SHOWN_AFTER_S:
            over = state.done == state.total > 0
            phase = DONE if over else "estimating the capacity, requests"
            told = RunProgress(phase=phase, done=state.done, total=state.total, wall_s=state.wall_s)
            display.update("load", told)

    with estimating_told(listen):
        yield
