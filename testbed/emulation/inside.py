"""The first process of a sandbox: brings the fabric up, runs the job, reports, and ends.

`sandbox.run_in_sandbox` starts it as `python -m testbed.emulation.inside REPORT_FD RECORD_FD`, with the job
on standard input. The record goes to the file behind RECORD_FD. When this process ends, the kernel ends
everything else in the sandbox.
"""

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO, NoReturn

import msgspec

from testbed.emulation.processes import StopWatch
from testbed.emulation.sandbox import SCRATCH, Alive, Ended, Failed, Moved, Report, write_frame
from testbed.emulation.timeslice import take_short_turns
from testbed.emulation.zygote import start_zygote
from testbed.fabric import RunFailed, RunProgress
from testbed.job import Job
from testbed.record_file import write_to

_ALIVE_S = 1.0


class Reporter:
    """Writes reports to `mfs`, and says every second that this process runs.

    A thread writes: if `mfs` is stopped, its pipe fills, and the run must not wait for that.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._queue: queue.SimpleQueue[Report] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="reporter", daemon=True).start()

    def write(self, report: Report) -> None:
        self._queue.put(report)

    def end(self, report: Failed | Ended) -> NoReturn:
        """Write the last report, and end this process and with it the sandbox, whatever other threads do."""
        self.write(report)
        while True:
            time.sleep(_ALIVE_S)

    def _run(self) -> None:
        while True:
            try:
                report = self._queue.get(timeout=_ALIVE_S)
            except queue.Empty:
                report = Alive()
            write_frame(self._stream, report)
            if isinstance(report, Failed | Ended):
                os._exit(0)


def main() -> None:
    reporter = Reporter(os.fdopen(int(sys.argv[1]), "wb"))
    reporter.write(Alive())
    directory = Path(SCRATCH) / "run"
    watch = StopWatch(lambda what: reporter.end(Failed(message=what, log=_logs(directory))))
    try:
        job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Job)
        _own_ground(directory)
        take_short_turns()  # inherited by every process of the run
        watch.start()
        zygote = start_zygote(directory)
        from testbed.emulation.run import EmulatedRun  # takes a second, and the zygote needs it not

        def progress(step: RunProgress) -> None:
            reporter.write(Moved(progress=step))

        record = EmulatedRun(job, directory, progress, watch, zygote).run()
        with os.fdopen(int(sys.argv[2]), "wb") as file:
            write_to(file, record)
    except RunFailed as failure:
        reporter.end(Failed(message=str(failure), log=_logs(directory)))
    except BaseException as error:
        # A tool that misses its daemon complains about something else.
        what = ": ".join(filter(None, (watch.ended(), words_of(error))))
        reporter.end(Failed(message=what, log=_logs(directory)))
    reporter.end(Ended())


def words_of(error: BaseException) -> str:
    """An unexpected error with its notes, in a line. Its traceback goes to standard error, if it fits there:
    that is a file on a disk that may be full."""
    with contextlib.suppress(OSError):
        traceback.print_exception(error)
    return "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])


def _own_ground(directory: Path) -> None:
    """Mount a private tmpfs for files and sockets, bring loopback up, and turn IPv6 off."""
    subprocess.run(["mount", "-t", "tmpfs", "mfs", str(SCRATCH)], check=True)
    directory.mkdir()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for scope in ("all", "default"):  # this namespace's own settings
        switch = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        if switch.exists():
            switch.write_text("1")


def _logs(directory: Path) -> str:
    """The last lines of every log of the run."""
    parts = []
    for log in sorted(directory.rglob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-8:]
        if lines:
            parts.append(f"--- {log.name}\n" + "\n".join(lines))
    return "\n".join(parts)


if __name__ == "__main__":
    main()
