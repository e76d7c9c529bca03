"""What a run could leave on the machine, and a way to start a real `mfs` whose traces can be found.

Other runs may come and go meanwhile. So processes are known by a mark in their environment, which every
descendant inherits, and the test has its own directories as /tmp and /dev/shm.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).parents[2]
MFS = Path(sys.executable).with_name("mfs")
_MARK = "MFS_TEST_MARK"
_HIDDEN = ("/tmp", "/dev/shm")  # where a run may put files; Open vSwitch's own places are compared
_SYSTEM_PLACES = ("/run/netns", "/run/openvswitch", "/var/log/openvswitch", "/etc/openvswitch")
_COUNTERS = {"/proc/sys/kernel/ns_last_pid"}


@dataclass
class Machine:
    """What all runs share: none of it may differ after a run."""

    interfaces: set[str] = field(default_factory=lambda: set(os.listdir("/sys/class/net")))
    mounts: set[str] = field(
        default_factory=lambda: set(Path("/proc/self/mountinfo").read_text().splitlines())
    )
    files: set[str] = field(
        default_factory=lambda: {str(p) for d in _SYSTEM_PLACES for p in Path(d).glob("*")}
    )
    settings: dict[str, str] = field(default_factory=lambda: dict(_settings()))

    def changed_since(self, before: "Machine") -> list[str]:
        """Return the changes: interfaces with bridges, mounts with named namespaces, files, sysctls."""
        changes = [f"interface {name}" for name in self.interfaces ^ before.interfaces]
        changes += [f"mount {line}" for line in self.mounts ^ before.mounts]
        changes += [f"file {name}" for name in self.files ^ before.files]
        for name in self.settings.keys() | before.settings.keys():
            if self.settings.get(name) != before.settings.get(name):
                changes.append(f"{name}: {before.settings.get(name)} -> {self.settings.get(name)}")
        return changes


def _settings() -> Iterator[tuple[str, str]]:
    """Yield every writable sysctl: the others are counters or facts of the kernel."""
    for directory, _, names in os.walk("/proc/sys"):
        for name in names:
            path = f"{directory}/{name}"
            with contextlib.suppress(OSError):  # some are write-only
                if os.stat(path).st_mode & 0o222 and path not in _COUNTERS:
                    yield path, Path(path).read_text(errors="replace")


class MarkedRun:
    """A process of `program` with `arguments`, its descendants, and the place of its files.

    `home` is a directory of the test; standard error is in `home/stderr`.
    """

    def __init__(self, home: Path, *arguments: str, program: Path = MFS) -> None:
        self._mark = uuid.uuid4().hex
        self._home = home
        self._seen: dict[tuple[int, float], psutil.Process] = {}
        hidden = [d for d in _HIDDEN if _nobody_lives_in(d, home)]
        for directory in hidden:
            (home / "hidden" / directory[1:]).mkdir(parents=True)
        binds = [f"mount --bind {home}/hidden{d} {d} && " for d in hidden]
        with (home / "stdout").open("wb") as stdout, (home / "stderr").open("wb") as stderr:
            # Each of these replaces itself with the next: the process started here becomes `mfs`.
            own_directories = ["unshare", "--mount", "sh", "-c", "".join(binds) + 'exec "$@"', "sh"]
            # If a shell runs the tests in the background, they and `mfs` would ignore Ctrl-C.
            deaf_no_more = ["env", "--unset=TMPDIR", "--default-signal=INT"]
            self.process = subprocess.Popen(
                [*own_directories, *deaf_no_more, str(program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=os.environ | {_MARK: self._mark},
                cwd=home,
            )

    def wait_until(self, phase: str) -> None:
        """Wait until the run says that it is in `phase`, and note its processes."""
        deadline = time.monotonic() + 90
        while f": {phase}" not in self.stderr:
            assert self.process.poll() is None, f"mfs ended early:\n{self.stderr}"
            assert time.monotonic() < deadline, f"mfs did not get so far:\n{self.stderr}"
            time.sleep(0.05)
        self._seen = {(p.pid, p.create_time()): p for p in self.processes()}

    def end(self, with_signal: signal.Signals | None = None) -> int:
        """Send `with_signal` if given, and return the exit code."""
        if with_signal is not None:
            self.process.send_signal(with_signal)
        return self.process.wait(timeout=90)

    def abandon(self) -> None:
        """Leave no run behind, whatever the test found."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def stderr(self) -> str:
        return (self._home / "stderr").read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """The running processes that carry the mark."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == self._mark:
                    found.append(process)
        return found

    def network_namespaces(self) -> set[str]:
        """The distinct /proc/*/ns/net of the run. Without a mount, a namespace ends with its last process."""
        found = set()
        for process in self.processes():
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{process.pid}/ns/net"))
        return found - {os.readlink("/proc/self/ns/net")}

    def left_behind(self) -> list[str]:
        """Return processes (marked ones, and those seen before, even as zombies), namespaces and files."""
        left = [f"process {p.pid} {p.name()}" for p in self._seen.values() if p.is_running()]
        left += [f"process {p.pid} with the mark" for p in self.processes()]
        left += [f"network namespace {name}" for name in self.network_namespaces()]
        left += [f"file {path}" for path in (self._home / "hidden").rglob("*") if not path.is_dir()]
        left += [f"directory {path}" for d in _HIDDEN for path in (self._home / f"hidden{d}").glob("*/")]
        return left


def _nobody_lives_in(directory: str, home: Path) -> bool:
    """Whether `directory` can be hidden from the run: neither the interpreter nor the code is below it."""
    needed = (home, CHECKOUT, Path(sys.prefix), Path(sys.base_prefix))
    return not any(path.resolve().is_relative_to(directory) for path in needed)


def nothing_left(before: Machine, *runs: MarkedRun) -> list[str]:
    """Return what is still there after ten seconds: the kernel removes namespaces in the background."""
    deadline = time.monotonic() + 10
    while True:
        left = [what for run in runs for what in run.left_behind()] + Machine().changed_since(before)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)
