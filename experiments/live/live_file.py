"""The file `live.json`, in which a run says how it is while it is under way.

A run writes it into its results directory about once a second, atomically, and removes it at its end. So a
viewer is a process of its own that costs the run nothing, may come and go, and needs no rights but to read.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from experiments.atomic_file import replacing
from experiments.errors import UserError
from testbed.fabric import RunProgress

LIVE_FILE: Final = "live.json"
_WRITE_EVERY_S: Final = 1.0


class LiveRun(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is. `states` has the policies that have begun. `written_s` is the time of day (Unix)."""

    scenario: str
    fabric: str
    policies: tuple[str, ...]
    states: dict[str, RunProgress]
    written_s: float


class LiveFile:
    """Writes `live.json` into `directory` until it is closed, as by `contextlib.closing`.

    A file that cannot be written must not end a run, so errors are ignored.
    """

    def __init__(
        self,
        directory: Path,
        *,
        scenario: str,
        fabric: str,
        policies: Sequence[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = directory / LIVE_FILE
        self._scenario = scenario
        self._fabric = fabric
        self._policies = tuple(policies)
        self._clock = clock
        self._states: dict[str, RunProgress] = {}
        self._written_s: float | None = None

    def close(self) -> None:
        """Remove the file: the run has ended."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def update(self, policy: str, progress: RunProgress) -> None:
        """Write how the run of `policy` is, unless its phase is known and the file is not a second old."""
        now_s, before = self._clock(), self._states.get(policy)
        self._states[policy] = progress
        same = before is not None and before.phase == progress.phase
        if same and self._written_s is not None and now_s - self._written_s < _WRITE_EVERY_S:
            return
        self._written_s = now_s
        run = LiveRun(
            scenario=self._scenario,
            fabric=self._fabric,
            policies=self._policies,
            states=self._states,
            written_s=now_s,
        )
        with contextlib.suppress(OSError), replacing(self._path, durable=False) as temporary:
            temporary.write_bytes(msgspec.json.encode(run))


def under_way(directory: Path) -> bool:
    """Whether a run holds its lock on `directory` (`experiments.run.directory`).

    It does not, for instance, if the run was killed and left its `live.json` behind.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_live(directory: Path) -> LiveRun | None:
    """Return how the run in `directory` is; None if no run is under way there."""
    try:
        raw = (directory / LIVE_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not under_way(directory):
        return None
    try:
        return msgspec.json.decode(raw, type=LiveRun)
    except msgspec.MsgspecError as error:
        raise UserError(f"{directory / LIVE_FILE}: was written by another version of mfs ({error})") from None


def newest_run(runs: Path) -> Path | None:
    """Return the directory in `runs` of the run under way that has begun last; None without one."""
    found = [path.parent for path in runs.glob(f"*/{LIVE_FILE}") if under_way(path.parent)]
    return max(found, key=lambda directory: directory.name, default=None)
