"""Ctrl-C and SIGTERM while results are written: the user is told that the first is held."""

import contextlib
import sys
from pathlib import Path
from types import TracebackType

from experiments.held_signal import HeldSignal
from experiments.results.checksums import has_all_results


class HeldWhileWriting(HeldSignal):
    """A `HeldSignal` with a line on standard error, for a block that writes the results of a run into
    `directory`, `summary.json` after all that makes it complete.

    `again` is the command that goes on with the run, if it has kept what went before the results.
    """

    def __init__(self, directory: Path, again: str | None = None) -> None:
        super().__init__()
        self._directory = directory
        self._again = again

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, KeyboardInterrupt):
            error.add_note(self._what_is_left())

    def _tell(self) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more: the results still matter
            print(
                f"mfs: results are being written to {self._directory}; a second signal stops at once",
                file=sys.stderr,
                flush=True,
            )

    def _what_is_left(self) -> str:
        where = self._directory
        if has_all_results(where):
            return f"the results are in {where}, perhaps without a report; to make it: mfs report {where}"
        if self._again is not None:
            return f"to go on: {self._again}"
        return f"{where} is incomplete: it has no summary.json of all policies; delete it and run again"
