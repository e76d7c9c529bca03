"""Writing files atomically: a file appears whole or not at all."""

import errno
import glob
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from controller.disk import flush

CANNOT_WRITE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""What a file system answers that takes no more: full, over a quota, too large a file, a broken disk."""


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write. It replaces `path` when the block ends without an exception.

    On an exception (a full disk is an `OSError`), the temporary file is removed and `path` is left as it
    was. Its content is on the disk before it appears (`durable`), so that a machine that loses its power
    leaves no empty file under the name.

    Raises `OSError` if `path` exists and is not an ordinary file: replacing a device, for instance, would
    destroy it, and in a folder of others a symbolic link may point anywhere. An `OSError` about the temporary
    file, or about a disk that takes no more, names `path`, or the folder of `path` if that is missing.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "a symbolic link is not written to: name the file it points to", str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not an ordinary file", str(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    name = str(temporary)
    try:
        # The mode is that of any new file of this process: the umask decides who may read results.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    except OSError as error:
        error.filename = str(path if path.parent.is_dir() else path.parent)
        raise
    try:
        yield temporary
        if durable:
            flush(temporary)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_about(error, name):
            error.filename = str(path)
        raise


def remove_left_behind(paths: Iterable[Path]) -> None:
    """Remove the temporary files of `paths` that processes have left that were killed. Nobody may be writing
    to these paths."""
    for path in paths:
        for temporary in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}"):
            temporary.unlink(missing_ok=True)


def _is_about(error: OSError, name: str) -> bool:
    """Whether `error` is about the file `name`: a write that fails names no file."""
    return error.errno in CANNOT_WRITE if error.filename is None else str(error.filename) == name


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
