"""A process that has so many files open that new descriptors have high numbers."""

import contextlib
import os
import resource
from collections.abc import Iterator

FIRST = 1024  # `select.select` takes lower ones only


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """Within, each new descriptor is `FIRST` or more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while opened[-1] < FIRST:
            opened.append(os.dup(opened[0]))
        yield
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
