"""Standard output: printing tables there, and keeping everything else out of it."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator

from rich.console import Console

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def stdout(least_width: int = 0) -> Console:
    """Return a console on standard output, for tables, of at least `least_width` columns.

    A narrower terminal wraps the lines of a table, which is easier to read than squeezed columns.
    """
    console = Console(file=sys.stdout, highlight=False)
    if console.width < least_width:
        console = Console(file=sys.stdout, highlight=False, width=least_width)
    return console


def printable(text: str) -> str:
    """Return `text` without what a terminal would obey: control characters are shown as `\\x1b`.

    File names, and the ids in a trace or in a run of others, may have any.
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


@contextlib.contextmanager
def standard_output_kept_clean() -> Iterator[None]:
    """Send what this process and its children write to standard output to standard error instead.

    Libraries and tools may print, but with `--json`, standard output has to be the summary alone.
    """
    if sys.stdout is None:  # the caller has closed it
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
