"""The progress of reading a large trace, on standard error."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.cli.progress_display import Display

_MB = 10**6


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
