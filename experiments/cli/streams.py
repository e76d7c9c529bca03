"""Standard output: where tables go, and keeping it for what was asked for."""

import contextlib
import os
import sys
from collections.abc import Iterator

from rich.console import Console


def stdout(least_width: int = 0) -> Console:
    """Where tables go. One that needs `least_width` columns is better wrapped by a narrow terminal, line by
    line, than squeezed into it."""
    console = Console(file=sys.stdout, highlight=False)
    if console.width < least_width:
        console = Console(file=sys.stdout, highlight=False, width=least_width)
    return console


@contextlib.contextmanager
def standard_output_kept_clean() -> Iterator[None]:
    """Send what a run writes to standard output, its processes too, to standard error.

    Libraries and tools print as they like; with `--json` only the summary may come out there.
    """
    if sys.stdout is None:  # closed by the caller: there is nothing to keep clean
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
