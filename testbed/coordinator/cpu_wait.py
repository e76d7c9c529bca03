"""How long the processes of a run wait for a CPU whenever they have something to do.

Idle CPU time says how busy the machine is, and not whether that holds up the run: on a machine that others
use, too, none may be left while everything of the run gets its turn at once. The kernel counts for each
thread how long it was ready to run and did not, and how often it got a CPU.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from controller.units import NS_PER_MS

_LEAST_TURNS = 200
"""Processes that run less often than this in a whole run, such as shells, delay nothing."""


class _Turns(NamedTuple):
    waited_ns: int = 0
    taken: int = 0


class CpuWait(msgspec.Struct, frozen=True, kw_only=True):
    """The process that waited longest, on average, for each of its turns on a CPU."""

    process: str
    mean_ms: float


class CpuWaits:
    """From `start` to `stop`, of all processes that are there both times. `names` gives names by PID;
    others are called as the kernel calls them."""

    def __init__(self, names: Mapping[int, str], proc: Path = Path("/proc")) -> None:
        self._names = names
        self._proc = proc
        self._before: dict[int, _Turns] = {}

    def start(self) -> None:
        self._before = self._read()

    def stop(self) -> CpuWait | None:
        """Return the longest mean wait. None if the kernel does not count waits, or nothing ran."""
        longest: CpuWait | None = None
        for pid, after in self._read().items():
            before = self._before.get(pid)
            turns = 0 if before is None else after.taken - before.taken
            if before is None or turns < _LEAST_TURNS:
                continue
            mean_ms = (after.waited_ns - before.waited_ns) / turns / NS_PER_MS
            if longest is None or mean_ms > longest.mean_ms:
                longest = CpuWait(process=self._name(pid), mean_ms=mean_ms)
        return longest

    def _read(self) -> dict[int, _Turns]:
        found: dict[int, _Turns] = {}
        for path in self._proc.glob("[0-9]*/task/[0-9]*/schedstat"):
            try:
                _, waited, taken = map(int, path.read_text().split())
            except (OSError, ValueError):
                continue  # it has ended, or this kernel does not count
            pid = int(path.parts[-4])
            so_far = found.get(pid, _Turns())
            found[pid] = _Turns(so_far.waited_ns + waited, so_far.taken + taken)
        return found

    def _name(self, pid: int) -> str:
        if pid in self._names:
            return self._names[pid]
        try:
            return (self._proc / str(pid) / "comm").read_text().strip()
        except OSError:
            return f"process {pid}"
