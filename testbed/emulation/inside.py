"""The first process of a sandbox: brings the fabric up, runs the job, reports, and ends.

`sandbox.run_in_sandbox` starts it as `python -m testbed.emulation.inside REPORT_FD`, with the job on
standard input. When this process ends, the kernel ends everything else in the sandbox.
"""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import msgspec

from testbed.emulation.run import EmulatedRun
from testbed.emulation.sandbox import SCRATCH, Ended, Failed, Moved, write_frame
from testbed.emulation.timeslice import take_short_turns
from testbed.fabric import RunFailed, RunProgress
from testbed.job import Job


def main() -> None:
    with os.fdopen(int(sys.argv[1]), "wb") as reports:
        directory = Path(SCRATCH) / "run"
        try:
            job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Job)
            _own_ground(directory)
            take_short_turns()  # inherited by every process of the run

            def progress(step: RunProgress) -> None:
                write_frame(reports, Moved(progress=step))

            record = EmulatedRun(job, directory, progress).run()
        except RunFailed as failure:
            write_frame(reports, Failed(message=str(failure), log=_logs(directory)))
        except BaseException as error:
            traceback.print_exc()
            message = f"{type(error).__name__}: {error}"
            write_frame(reports, Failed(message=message, log=_logs(directory)))
        else:
            write_frame(reports, Ended(record=record))
    os._exit(0)


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
