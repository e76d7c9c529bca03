"""The lines of a trace file, and the messages for files that cannot be read."""

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from experiments.errors import UserError
from experiments.named_file import open_ordinary

_POINTER = "version https://git-lfs.github.com/spec/v1"
"""The first line of the file that Git LFS leaves in place of one that it has not fetched."""

_ANNEX = "/annex/objects/"
_BINARY = {
    b"\x1f\x8b": "compressed by gzip: decompress it first (gunzip)",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: decompress it first (unzstd)",
    b"BZh": "compressed by bzip2: decompress it first (bunzip2)",
    b"PK\x03\x04": "a ZIP archive: unpack it first (unzip)",
    b"PAR1": "a Parquet file: traces are text, so write it as JSON lines first",
}
"""What kinds of binary files begin with, and what to do with them."""

MOST_LINE_CHARACTERS: Final = 64 * 2**20
"""A trace may be larger than memory, but not a line of it."""

_TOLD_EVERY_LINES: Final = 1 << 14
_TOLD_EVERY_S: Final = 1.0

ReadingListener = Callable[[Path, int, int, float], None]
"""Called with a file, how many of its bytes have been read, how many it has, and seconds since the start."""

_tell: ContextVar[Callable[[Path, int], None] | None] = ContextVar("_tell", default=None)


@contextlib.contextmanager
def reading_told(listener: ReadingListener) -> Iterator[None]:
    """Inside, call `listener` every second while a trace is read.

    Every format reads its files in its own way, so the listener is not an argument of each.
    """
    began = told = time.monotonic()

    def tell(path: Path, done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _TOLD_EVERY_S:
            told = now
            listener(path, done, path.stat().st_size, now - began)

    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


def tell_reading(path: Path, done: int) -> None:
    """Tell whoever listens that `done` bytes of the file at `path` have been read."""
    tell = _tell.get()
    if tell is not None:
        tell(path, done)


def open_trace(path: Path) -> BinaryIO:
    """Open a trace to read bytes. Raises `UserError` unless it is an ordinary file, and `OSError`."""
    file = open_ordinary(path)
    # Files of the kernel say that they are empty, and some of them never end.
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise UserError(f"{path}: the trace file is empty")
    return file


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file without their ends. Raises as `lines_of` does."""
    return list(lines_of(path))


def lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a text file without their ends, one by one: a trace may be larger than memory.

    Raises `UserError` for a file that is missing, a directory, unreadable, not text or empty, and for one
    that stands for data which were not fetched.
    """
    empty = True
    try:
        with open_trace(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig") as file:
            for number, line in enumerate(iter(partial(file.readline, MOST_LINE_CHARACTERS), "")):
                if number == 0:
                    _check_fetched(line, path)
                if len(line) == MOST_LINE_CHARACTERS:
                    raise UserError(f"{path}, line {number + 1}: longer than {len(line):,} characters")
                empty = empty and not line.strip()
                if number % _TOLD_EVERY_LINES == 0:
                    tell_reading(path, raw.tell())
                yield line.removesuffix("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such trace file (workload.path)") from None
    except UnicodeDecodeError:
        raise not_text(path) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if empty:
        raise UserError(f"{path}: the trace file is empty")


def _check_fetched(first: str, path: Path) -> None:
    if first.strip() == _POINTER:
        raise UserError(
            f"{path}: a pointer of Git LFS, not the trace: fetch it in its repository with git lfs pull"
        )
    if _ANNEX in first and len(first) < 1000 and "{" not in first:
        raise UserError(
            f"{path}: a pointer of git-annex, not the trace: fetch it in its repository with git annex get"
        )


def not_text(path: Path) -> UserError:
    """Return the error for a file that is not text."""
    return UserError(f"{path}: {_what_it_is(path)}")


def _what_it_is(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError:
        start = b""
    for magic, told in _BINARY.items():
        if start.startswith(magic):
            return told
    return "not a text file (UTF-8), so not a trace"
