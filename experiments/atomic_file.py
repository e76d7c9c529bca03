"""Writing files atomically: a file appears whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write. It replaces `path` when the block ends without an exception.

    On an exception (a full disk is an `OSError`), the temporary file is removed and `path` is left as it
    was. If `path` is a symbolic link, the file it points to is replaced. Raises `OSError` if `path` exists
    and is not an ordinary file: replacing a device, for instance, would destroy it. An `OSError` about the
    temporary file, or about a full disk, names `path`, or the folder of `path` if that is missing.
    """
    asked, path = path, path.resolve()
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not an ordinary file", str(path))
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        error.filename = str(asked if path.parent.is_dir() else asked.parent)
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files, but whoever can read the folder may read the results.
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_about(error, name):
            error.filename = str(asked)
        raise


def _is_about(error: OSError, name: str) -> bool:
    """Whether `error` is about the file `name`: a write to a full disk names no file."""
    return error.errno == errno.ENOSPC if error.filename is None else str(error.filename) == name


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
