"""Tells every few seconds what goes on while results are written, which takes minutes after a long run."""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from testbed.fabric import RunProgress

RESULTS: Final = "results"
"""Under which name it is told."""

_EVERY_S: Final = 3.0

# Sections and traces are made in processes that are forked from this one. Whoever tells holds locks, of a
# terminal for instance, which nobody would release in the fork. So there is no fork meanwhile.
_TELLS = threading.Lock()
os.register_at_fork(before=_TELLS.acquire, after_in_parent=_TELLS.release, after_in_child=_TELLS.release)


class Telling:
    """Calls `tell` with what is said to it, from a thread, inside its `with` block.

    Nothing is told of what takes less than `every_s`: it would only hide what was told before.
    """

    def __init__(self, tell: Callable[[RunProgress], None], every_s: float = _EVERY_S) -> None:
        self._tell = tell
        self._every_s = every_s
        self._begun = time.monotonic()
        self._state = RunProgress(phase="")
        self._told = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telling", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def __call__(self, phase: str, done: int = 0, total: int = 0) -> None:
        """Say what begins now, or how far it is."""
        self._state = RunProgress(phase=phase, done=done, total=total)

    def end(self, phase: str) -> None:
        """Tell that all is done, if anything was told."""
        self(phase)
        if self._told:
            self._now()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            if not self._state.phase:  # nothing has been said yet
                continue
            with contextlib.suppress(OSError):  # nobody reads it any more: the results still matter
                self._now()

    def _now(self) -> None:
        state = self._state
        with _TELLS:
            self._told = True
            wall_s = time.monotonic() - self._begun
            self._tell(RunProgress(phase=state.phase, done=state.done, total=state.total, wall_s=wall_s))
