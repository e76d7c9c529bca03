"""The worker processes of a sweep: none outlives it."""

import os
import signal
import threading
import time
from typing import Final

_LOOK_S: Final = 0.5

_watched = False


def begin_worker(owner: int) -> None:
    """In a worker that `owner` has just started: as `end_with`, also if `owner` has exited already.

    A worker that waits for its first cell would otherwise wait for minutes.
    """
    if os.getppid() != owner:
        os._exit(1)
    end_with(owner)


def end_with(owner: int) -> None:
    """In a worker that `owner` started: exit when `owner` exits for any reason, and ignore Ctrl-C.

    Does nothing on another machine or in the sweep's own process.
    """
    global _watched
    if _watched or os.getppid() != owner:
        return
    _watched = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(owner,), daemon=True).start()


def _watch(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(_LOOK_S)
    os._exit(1)
