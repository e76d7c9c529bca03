"""What happens if somebody removes the directory of results while they are made."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from testbed.fabric import RunFailed


@contextlib.contextmanager
def told_if_lost(directory: Path, opened: int) -> Iterator[None]:
    """Raise `RunFailed`, at the end or in place of another error, if `directory` was removed or replaced.

    `opened` is a descriptor of the directory as it was. Without this, a file that is missing would be named,
    or an error of a library would be shown, or results would be made of what is left.
    """
    try:
        yield
    except Exception as error:
        if _is_there(directory, opened):
            raise
        raise _lost(directory) from error
    if not _is_there(directory, opened):
        raise _lost(directory)


def _is_there(directory: Path, opened: int) -> bool:
    try:
        return os.path.samestat(directory.stat(), os.fstat(opened))
    except OSError:
        return False


def _lost(directory: Path) -> RunFailed:
    return RunFailed(f"{directory} was removed or replaced while it went on, so its results are lost")
