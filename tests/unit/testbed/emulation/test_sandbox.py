"""A sandbox that does not start or ends early fails the run. A script stands in for `unshare`."""

import errno
import io
from pathlib import Path

import pytest
from serving_world import job, placed

from testbed.emulation import sandbox
from testbed.emulation.inside import words_of
from testbed.emulation.sandbox import run_in_sandbox
from testbed.fabric import RunFailed


def plays(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Put a script in place of `unshare`. Its last arguments are the descriptors of reports and record."""
    path = folder / "unshare"
    path.write_text(f'#!/bin/bash\nfd="${{@: -2:1}}"\n{script}\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin")


def failure(servers: int = 900) -> str:
    """What a run of so many servers fails with. A job of 900 is larger than a pipe."""
    with pytest.raises(RunFailed) as caught:
        run_in_sandbox(job(*placed(servers=servers)), lambda progress: None)
    return str(caught.value)


def test_a_sandbox_that_does_not_come_up_is_a_failed_run_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It does not read its job. The broken pipe that follows must not hide the cause."""
    plays(monkeypatch, tmp_path, 'exec 0<&-; echo "unshare failed: Operation not permitted" >&2; exit 1')
    assert failure() == "the sandbox ended early (exit code 1):\nunshare failed: Operation not permitted"


def test_a_job_that_is_larger_than_a_pipe_does_not_hide_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plays(monkeypatch, tmp_path, "head -c 100 >/dev/null; kill -KILL $$")
    assert failure().startswith("the sandbox ended early (signal 9)")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (r"\0\0\0", "its last report breaks off"),
        (r"\0\0\0\0\0\0\0\100half", "its last report breaks off"),
        (r"\0\0\0\0\0\0\0\4junk", "its last report cannot be read"),
    ],
    ids=["in the length", "in the report", "no report"],
)
def test_a_report_that_breaks_off_is_a_failed_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str, told: str
) -> None:
    plays(monkeypatch, tmp_path, f"cat >/dev/null; printf '{written}' >&$fd; echo killed >&2; exit 7")
    message = failure()
    assert message.startswith(f"the sandbox ended early (exit code 7, {told}")
    assert message.endswith("killed")


ALIVE = r"\0\0\0\0\0\0\0\14\201\244type\245alive"


def test_a_sandbox_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "_PATIENCE_S", 0.5)
    plays(monkeypatch, tmp_path, f"cat >/dev/null; printf '{ALIVE}' >&$fd; kill -STOP $$")
    message = failure()
    assert message.startswith("the sandbox has said nothing for 0 s: its launcher (process ")
    assert message.endswith(" of this machine) is stopped")


def test_a_sandbox_that_says_now_and_then_that_it_runs_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It says so five times, 0.3 s apart, and then ends."""
    monkeypatch.setattr(sandbox, "_PATIENCE_S", 1.0)
    says = f"for i in 1 2 3 4 5; do sleep 0.3; printf '{ALIVE}' >&$fd; done"
    plays(monkeypatch, tmp_path, f"cat >/dev/null; {says}; exit 7")
    assert failure().startswith("the sandbox ended early (exit code 7)")


def test_a_job_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "_PATIENCE_S", 0.5)
    plays(monkeypatch, tmp_path, "kill -STOP $$")
    assert failure().startswith("the sandbox has said nothing for 0 s: its launcher")


def test_a_full_disk_is_told_though_the_traceback_fits_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What process 1 writes to standard error goes to the same directory as its rows."""
    error = OSError(errno.ENOSPC, "No space left on device", "/spool")
    error.add_note("set TMPDIR to another directory")
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr("sys.stderr", io.TextIOWrapper(full, write_through=True))
        told = words_of(error)
    assert told == ("OSError: [Errno 28] No space left on device: '/spool'; set TMPDIR to another directory")
