"""Files that a scenario names: they are read when it is checked, and not again when it is resolved."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

Content = TypeVar("Content")


class CheckedFiles(Generic[Content]):
    """The contents of files of one kind, as of the last check of a scenario that names them."""

    def __init__(self, read: Callable[[Path], Content]) -> None:
        self._read = read
        self._contents: dict[str, Content] = {}

    def check(self, path: str) -> None:
        """Read the file now. Raises what `read` raises for a file that cannot be used."""
        self._contents[path] = self._read(Path(path))

    def content(self, path: str) -> Content:
        """Return what was read last. A file that this process has not checked is read now."""
        if path not in self._contents:
            self.check(path)
        return self._contents[path]
