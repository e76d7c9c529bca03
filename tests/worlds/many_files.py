"""Descriptors of high numbers, as a process has that keeps many files or connections open."""

import contextlib
import fcntl
import gc
import os
import resource
from collections.abc import Iterator
from typing import Final

FIRST: Final = 1024
"""`select.select` takes lower ones only."""


@contextlib.contextmanager
def many_allowed() -> Iterator[None]:
    """Within, this process may have as many files open as it may ever have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """Within, each new descriptor is `FIRST` or more, unless something else closes one of its own."""
    gc.collect()  # what earlier tests have left would be closed later
    with many_allowed(), contextlib.ExitStack() as opened:
        last = -1
        while last < FIRST:
            last = os.open(os.devnull, os.O_RDONLY)
            opened.callback(os.close, last)
        yield


def moved_high(descriptor: int) -> int:
    """Close `descriptor`, and return one from `FIRST` on that stands for it now."""
    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST)
    os.close(descriptor)
    return high
