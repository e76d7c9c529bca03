"""An anonymous file for what does not fit into memory."""

import os
import tempfile
import weakref


class TemporaryFile:
    """A file without a name in the directory for temporary files (TMPDIR), deleted with the object.

    It is appended to, and read anywhere. A failed write raises `OSError` with the directory's name.
    """

    def __init__(self) -> None:
        self._directory = tempfile.gettempdir()
        file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - outlives this call
        self._descriptor = file.fileno()
        self._end = 0
        self.close = weakref.finalize(self, file.close)

    def append(self, content: bytes | memoryview) -> int:
        """Write all of `content` at the end and return its offset."""
        begin, left = self._end, memoryview(content)
        try:
            while left:
                written = os.pwrite(self._descriptor, left, self._end)
                left = left[written:]
                self._end += written
        except OSError as error:
            error.filename = self._directory
            error.add_note("rows of a run are kept there until it ends; set TMPDIR to another directory")
            raise
        return begin

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on."""
        return os.pread(self._descriptor, size, offset)
