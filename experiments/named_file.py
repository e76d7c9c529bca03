"""Reading files that a user names: only ordinary ones, and only up to a size that makes sense.

A pipe or a device may never end, and a file of gigabytes under the wrong name would fill the memory before
anything could say that it is the wrong one.
"""

import io
import os
import stat
from pathlib import Path
from typing import Final

from experiments.errors import UserError

_PIECE_BYTES: Final = 1 << 20
_KINDS: Final = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
}


def named_text(path: Path, *, most_bytes: int, source: str = "", encoding: str = "utf-8") -> str:
    """Return the text of the file at `path`. Raises as `named_bytes` does, and for what is not text."""
    raw = named_bytes(path, most_bytes=most_bytes, source=source)
    try:
        return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise UserError(f"{source or path}: not a text file (UTF-8)") from None


def named_bytes(path: Path, *, most_bytes: int, source: str = "") -> bytes:
    """Return the content of the file at `path`, of at most `most_bytes` bytes.

    Raises `UserError` for a file that is missing, too large, not an ordinary file or cannot be read. Messages
    call the file `source`; without that, by its path.
    """
    source = source or str(path)
    try:
        with open_ordinary(path, source) as file:
            return _bounded(file.fileno(), most_bytes, source)
    except FileNotFoundError:
        raise UserError(f"{source}: no such file") from None
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error.strerror}") from None


def open_ordinary(path: Path, source: str = "") -> io.BufferedReader:
    """Open the file at `path` to read bytes.

    Raises `UserError` unless it is an ordinary file, and `OSError`.
    """
    # Opening a device can have effects of its own, so it is looked at first. The file may be replaced in
    # between, so it is looked at again, and opened without waiting for the other end of a pipe.
    _check_ordinary(os.stat(path), source or str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check_ordinary(os.fstat(descriptor), source or str(path))
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_ordinary(status: os.stat_result, source: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a file")
        raise UserError(f"{source}: this is {kind}, and an ordinary file is needed")


def _bounded(descriptor: int, most_bytes: int, source: str) -> bytes:
    """Read to the end. Files of the kernel say that they are empty, so the size they tell proves nothing."""
    size = os.fstat(descriptor).st_size
    pieces: list[bytes] = []
    while size <= most_bytes and (piece := os.read(descriptor, _PIECE_BYTES)):
        pieces.append(piece)
        size = max(size, sum(map(len, pieces)))
    if size > most_bytes:
        raise UserError(
            f"{source}: larger than {_size(most_bytes)}, which is too large for what it is read as"
        )
    return b"".join(pieces)


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"
