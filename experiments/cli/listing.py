"""Lists of names with their descriptions."""

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping


def aligned(rows: Mapping[str, str], width: int | None = None) -> list[str]:
    """Return an entry for each of `rows`, with the descriptions aligned.

    With a `width`, an entry has several lines if it is longer.
    """
    indent = max(map(len, rows)) + 2
    return [wrapped(f"{key:<{indent}}{text}".rstrip(), width, indent) for key, text in rows.items()]


def wrapped(line: str, width: int | None, indent: int) -> str:
    """Return `line`, broken between words into lines of up to `width`, all but the first indented."""
    if width is None or len(line) <= width:
        return line
    # A description needs some room, however narrow the terminal is.
    return textwrap.fill(
        line,
        max(width, indent + 20),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def list_width() -> int | None:
    """Return the width for lists: that of the terminal, or COLUMNS.

    None if there is neither: a list in a file has a line for each entry, whatever its length.
    """
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if terminal or "COLUMNS" in os.environ else None
