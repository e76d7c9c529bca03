"""Ctrl-C and SIGTERM while something must not be cut off: the first is held, and a second one stops it."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_ENDING = (signal.SIGINT, signal.SIGTERM)


class HeldSignal:
    """Inside its `with` block, the first signal is held, and a second one does what it would have done
    without, unless `all_of_them` are held. After the block, `deliver` does what the first would have done.

    Signals that are ignored, or end the process without Python, stay as they are, and so do all signals in
    a thread other than the main one.
    """

    def __init__(self, *, all_of_them: bool = False) -> None:
        self._all = all_of_them
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
            if not self._all:
                self._before[signal.Signals(number)](number, frame)
            return
        self._held = signal.Signals(number)
        self._tell()

    def _tell(self) -> None:
        """Called when a signal is held."""
