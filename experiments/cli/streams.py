"""Standard output: printing tables there, and keeping everything else out of it."""

import contextlib
import os
import sys
from collections.abc import Iterator

from rich.console import Console


def stdout(least_width: int = 0) -> Console:
    """Return a console on standard output, for tables, of at least `least_width` columns.

    A narrower terminal wraps the lines of a table, which is easier to read than squeezed columns.
    """
    console = Console(file=sys.stdout, highlight=False)
    if console.width < least_width:
        console = Console(file=sys.stdout, highlight=False, width=least_width)
    return console


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
