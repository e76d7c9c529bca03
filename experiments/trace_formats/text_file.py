"""The lines of a trace file, and the messages for files that cannot be read."""

from collections.abc import Iterator
from pathlib import Path

from experiments.errors import UserError


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file without their ends. Raises as `lines_of` does."""
    return list(lines_of(path))


def lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a text file without their ends, one by one: a trace may be larger than memory.

    Raises `UserError` for a file that is missing, a directory, unreadable, not text or empty.
    """
    empty = True
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                empty = empty and not line.strip()
                yield line.removesuffix("\n")
    except IsADirectoryError:
        raise UserError(f"{path}: this is a directory; workload.path names one trace file") from None
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such trace file (workload.path)") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file (UTF-8), so not a trace") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if empty:
        raise UserError(f"{path}: the trace file is empty")
