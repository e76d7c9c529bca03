"""What the directories of a comparison are called in its labels."""

from collections.abc import Sequence
from pathlib import Path

from experiments.errors import UserError


def directory_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each of `paths`: its last part, or all of it where two have the same last part.

    Raises `UserError` if two paths are the same directory, which would be compared with itself.
    """
    resolved = [path.resolve() for path in paths]
    for i, path in enumerate(resolved):
        if path in resolved[:i]:
            raise UserError(f"{paths[i]}: named twice")
    last = [path.name for path in resolved]
    return {
        path: name if last.count(name) == 1 else str(path) for path, name in zip(paths, last, strict=True)
    }
