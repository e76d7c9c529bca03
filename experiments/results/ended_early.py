"""What a directory of a run, sweep or search holds that has no result yet."""

from pathlib import Path
from typing import Final

UNFINISHED: Final = "unfinished"
"""The folder in which a run keeps what has finished, until all has."""

PLAN: Final = "plan.json"
"""The file in which a sweep or a search writes down what it runs, before its first cell."""


def not_finished(path: Path) -> str | None:
    """Say that what `path` holds has not finished and how to go on, or return None if that is not why."""
    if (path / UNFINISHED).is_dir():
        return f"{path}: this run has not finished; the same command with --out {path} goes on with it"
    if (path / PLAN).is_file() and not any(
        (path / f"{name}.json").is_file() for name in ("sweep", "capacity")
    ):
        return (
            f"{path}: this sweep or search has not finished;"
            f" the same command with --out {path} goes on with it"
        )
    return None
