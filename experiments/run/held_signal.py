"""Ctrl-C and SIGTERM while something must not be cut off: the first is held, and a second one stops it."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

_ENDING = (signal.SIGINT, signal.SIGTERM)


class HeldSignal:
    """Inside its `with` block, the first signal is held, and a second one does what it would have done
    without. After the block, `deliver` does what the first would have done.

    Signals that are ignored, or end the process without Python, stay as they are, and so do all signals in
    a thread other than the main one.
    """

    def __init__(self) -> None:
        self._held: signal.Signals | None = None
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def deliver(self, note: str = "") -> None:
        """If a signal was held, do what it would have done. Its exception gets `note`, if there is one."""
        if self._held is None:
            return
        try:
            self._before[self._held](self._held, None)
        except KeyboardInterrupt as error:
            if note:
                error.add_note(note)
            raise

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._held is not None:
            self._before[signal.Signals(number)](number, frame)
            return
        self._held = signal.Signals(number)
        self._tell()

    def _tell(self) -> None:
        """Called when a signal is held."""


class HeldWhileWriting(HeldSignal):
    """A `HeldSignal` with a line on standard error, for a block that writes the results of a run into
    `directory`, `summary.json` after all that makes it complete."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, KeyboardInterrupt):
            error.add_note(_what_is_left(self._directory))

    def _tell(self) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more: the results still matter
            print(
                f"mfs: results are being written to {self._directory}; a second signal stops at once",
                file=sys.stderr,
                flush=True,
            )


def _what_is_left(directory: Path) -> str:
    if (directory / "summary.json").exists():
        return f"the results are in {directory}, perhaps without a report; to make it: mfs report {directory}"
    return f"{directory} is incomplete: it has no summary.json; delete it and run again"
