"""The directory for a run's results: new or empty, writable, and used by one run at a time."""

import contextlib
import fcntl
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from experiments.atomic_file import CANNOT_WRITE
from experiments.errors import UserError
from experiments.live.live_file import LIVE_FILE
from experiments.lost_directory import told_if_lost


def _never(directory: Path) -> bool:
    return False


@contextlib.contextmanager
def results_directory(
    out: Path | None, scenario: str, can_go_on: Callable[[Path], bool] = _never
) -> Iterator[Path]:
    """Yield an empty, writable directory, locked against other runs: `out`, or a new one in `runs/`.

    It need not be empty if `can_go_on` says that what is in it is an unfinished run of the same kind.
    A directory that did not exist before is removed again if the run leaves it empty. Raises `UserError`
    for a directory that cannot be used. An `OSError` for a full disk always names a path. If it has none,
    because writing to an open file failed, it gets the path of the directory. Raises `RunFailed` if the
    directory is removed meanwhile.
    """
    made = out is None or not out.exists()
    try:
        directory = new_directory(scenario) if out is None else _made_directory(out)
        with tempfile.TemporaryFile(dir=directory):
            pass
        lock = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise UserError(_cannot_write(out or Path("runs").absolute(), error)) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            made = False
            raise UserError(f"--out {directory}: in use by another run") from None
        # Only now: another run may just have finished in it.
        filled = any(path.name != LIVE_FILE for path in directory.iterdir())  # a killed run leaves that file
        if filled and not can_go_on(directory):
            raise UserError(f"--out {directory}: is not empty; name a directory that is new or empty")
        with told_if_lost(directory, lock):
            yield directory
    except OSError as error:
        if error.errno in CANNOT_WRITE and error.filename is None:
            error.filename = str(directory)
        raise
    finally:
        os.close(lock)
        if made:
            with contextlib.suppress(OSError):  # not empty: there are results in it
                directory.rmdir()


def _made_directory(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; name a directory that is new or empty")
    out.mkdir(parents=True, exist_ok=True)
    return out


def new_directory(name: str) -> Path:
    """Make `runs/<date>-<time>-<name>`, with a number appended if that exists already.

    Raises `UserError` if nothing can be made there.
    """
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    for n in itertools.count(1):
        directory = Path("runs") / (stem if n == 1 else f"{stem}-{n}")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{_cannot_write(Path('runs').absolute(), error)}; --out names another") from None
        return directory
    raise AssertionError  # the numbers do not end


def _cannot_write(directory: Path, error: OSError) -> str:
    return f"{directory}: cannot write results there: {error.strerror}"
