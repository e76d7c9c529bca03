"""The processes of a sandbox: their names in words, and which of them are stopped."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from testbed.coordinator.silence import PATIENCE_S

_LOOK_S = 0.5
_ENDED_S = 2.0
"""So long after the end of a daemon, whoever has to do with it has said what that led to, or waits for it."""

_MODULES = {
    b"controller.ryu_app": "the controller",
    b"workers.zygote": "the workers' parent process",
}


def stopped(proc: Path = Path("/proc")) -> dict[int, str]:
    """The names of the processes that a signal or a debugger has stopped, by their numbers.

    In a sandbox, `/proc` has the sandbox's processes only.
    """
    found = {}
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        try:
            # The name is in brackets, and may have brackets and blanks itself.
            head, _, tail = (proc / entry / "stat").read_text(errors="replace").rpartition(")")
            if tail.split()[0] in ("T", "t"):
                found[int(entry)] = _name(head.partition("(")[2], proc / entry)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return found


def number_of(name: str, proc: Path = Path("/proc")) -> int:
    """The number of the process with this short name, `rank 2`.

    Raises `ProcessLookupError` if there is none.
    """
    for entry in os.listdir(proc):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, NotADirectoryError):
            if entry.isdigit() and (proc / entry / "comm").read_text().removesuffix("\n") == name:
                return int(entry)
    raise ProcessLookupError(f"there is no process {name!r}")


def _name(short: str, process: Path) -> str:
    if short.startswith("rank "):
        return short  # as ranks call themselves
    words = (process / "cmdline").read_bytes().split(b"\0")
    return next((name for module, name in _MODULES.items() if module in words), short)


class StopWatch:
    """Calls `give_up`, once: when a process of the sandbox has been stopped for `PATIENCE_S`, or has ended
    that every run needs, and nobody else says so.

    It needs nobody's help: whoever waits for the stopped process may not look at anything else.
    """

    excused: Callable[[], Collection[str]] = tuple
    """The names of processes that are stopped because the scenario asks for it."""

    ended: Callable[[], str] = str
    """Returns which of the processes that a run needs has ended, in words; empty while all run."""

    def __init__(self, give_up: Callable[[str], None]) -> None:
        self._give_up = give_up
        self._stopped_s: dict[int, float] = {}
        self._ended_s = 0.0

    def start(self) -> None:
        threading.Thread(target=self._run, name="stop watch", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            if culprit := self.look(stopped(), self.ended()):
                self._give_up(culprit)
                return

    def look(self, now_stopped: dict[int, str], ended: str = "") -> str:
        """Take in which processes are stopped, and which has ended, `_LOOK_S` after the last look.

        Returns what is wrong.
        """
        self._ended_s = self._ended_s + _LOOK_S if ended else 0.0
        if self._ended_s > _ENDED_S:
            return ended
        excused = self.excused()
        self._stopped_s = {
            pid: self._stopped_s.get(pid, 0.0) + _LOOK_S
            for pid, name in now_stopped.items()
            if name not in excused
        }
        for pid, seconds in self._stopped_s.items():
            if seconds > PATIENCE_S:
                who = f"{now_stopped[pid]} (process {pid} of the sandbox)"
                return f"{who} has been stopped for {PATIENCE_S:.0f} s"
        return ""
