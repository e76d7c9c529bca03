"""Reporting the progress of a sweep from the files that cells leave: backends need not report it."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.sweep.cell import cell_directory, outcome_of
from experiments.sweep.plan import Cell, Plan
from experiments.sweep.progress import SweepListener, SweepProgress

_LOOK_S = 0.5


@contextlib.contextmanager
def watching(plan: Plan, directory: Path, todo: Sequence[Cell], progress: SweepListener) -> Iterator[None]:
    """Call `progress` every `_LOOK_S` seconds, and once at the end, while the cells `todo` run."""
    ended = threading.Event()
    watched = (plan, directory, list(todo), progress, ended)
    watcher = threading.Thread(target=_watch, args=watched, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(
    plan: Plan, directory: Path, running: list[Cell], progress: SweepListener, ended: threading.Event
) -> None:
    began = newest = time.monotonic()
    over_before, failed, over = len(plan.cells) - len(running), 0, 0
    while True:
        last_look = ended.is_set()
        still: list[Cell] = []
        for cell in running:
            outcome = outcome_of(cell_directory(directory, cell), cell)
            if outcome is None:
                still.append(cell)
            else:
                over, failed, newest = over + 1, failed + (outcome.error is not None), time.monotonic()
        running = still
        now = time.monotonic()
        left_s = max(0.0, (newest - began) / over * len(running) - (now - newest)) if over else None
        progress(
            SweepProgress(
                over=over_before + over,
                failed=failed,
                total=len(plan.cells),
                wall_s=now - began,
                left_s=left_s,
            )
        )
        if last_look:
            return
        ended.wait(_LOOK_S)
