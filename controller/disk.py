"""Having files on the disk."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Return once the content of `path` is on the disk. Raises `OSError`, as for a disk that is full."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
