"""Ctrl-C and SIGTERM while results are written: the user is told that the first is held."""

import contextlib
import sys
from pathlib import Path
from types import TracebackType

from experiments.held_signal import HeldSignal


class HeldWhileWriting(HeldSignal):
    """A `HeldSignal` with a line on standard error, for a block that writes the results of a run into
    `directory`, `summary.json` after all that makes it complete."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, KeyboardInterrupt):
            error.add_note(_what_is_left(self._directory))

    def _tell(self) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more: the results still matter
            print(
                f"mfs: results are being written to {self._directory}; a second signal stops at once",
                file=sys.stderr,
                flush=True,
            )


def _what_is_left(directory: Path) -> str:
    if (directory / "summary.json").exists():
        return f"the results are in {directory}, perhaps without a report; to make it: mfs report {directory}"
    return f"{directory} is incomplete: it has no summary.json; delete it and run again"
