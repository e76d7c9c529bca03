"""A private Open vSwitch, with its own database, daemons and run directory."""

import ctypes
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from testbed.emulation.daemons import DaemonPulse
from workers.process import words_of_exit

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"

_PIDFD_GETFD = 438  # the same number on every architecture
_SOCKET_BUFFER = 32 * 1024 * 1024
_START_SECONDS = 15.0


class OpenVSwitchFailed(RuntimeError):
    """A daemon did not start. The message holds the end of the logs."""


def kernel_datapath_available() -> bool:
    """Return whether the kernel's `openvswitch` module, the faster datapath, is loaded.

    A run does not load it, because it changes nothing on the machine.
    """
    return Path("/sys/module/openvswitch").exists()


def _which(name: str) -> bool:
    return shutil.which(name) is not None


class OpenVSwitch:
    """Starts `ovsdb-server` and `ovs-vswitchd` in `directory`, and points the OVS tools at them.

    The daemons are children of this process, so they end with the sandbox's PID namespace.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"):
            os.environ[name] = str(directory)
        self._database: subprocess.Popen[bytes] | None = None
        self._switch: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        d = self.directory
        subprocess.run(["ovsdb-tool", "create", d / "conf.db", SCHEMA], check=True)
        self._database = self._spawn("ovsdb-server", str(d / "conf.db"), f"--remote=punix:{d}/db.sock")
        self._wait_for(d / "db.sock", self._database)
        self._initialise()
        # Packets of every link go through this process, so it runs at a higher priority than the workers.
        self._switch = self._spawn("nice", "-n", "-10", "ovs-vswitchd", f"unix:{d}/db.sock")
        self._wait_for(d / "br.pid", self._switch)

    def _initialise(self) -> None:
        # The socket is there a moment before the server listens. Whoever comes between the two is refused.
        patient = ["--retry", f"--timeout={_START_SECONDS:.0f}"]
        done = subprocess.run(
            ["ovs-vsctl", *patient, "--no-wait", "init"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OpenVSwitchFailed(
                f"Open vSwitch did not start (its database: {done.stderr.strip()}): {self.log_tail()}"
            )

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        daemon = next(part for part in command if part.startswith("ovs"))
        extra = [
            f"--log-file={self.directory}/{daemon}.log",
            "-vconsole:off",
            "--no-chdir",
        ]
        if daemon == "ovs-vswitchd":
            extra.append(f"--pidfile={self.directory}/br.pid")
        return subprocess.Popen(
            [*command, *extra],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _wait_for(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise OpenVSwitchFailed(
                    f"Open vSwitch did not start ({path.name} missing): {self.log_tail()}"
                )
            time.sleep(0.02)

    def pulses(self) -> list[DaemonPulse]:
        """What asks each daemon whether it runs. `start` has to have returned."""
        daemons = {"ovs-vswitchd": self._switch, "ovsdb-server": self._database}
        return [
            DaemonPulse(name, self.directory / f"{name}.{process.pid}.ctl")
            for name, process in daemons.items()
            if process is not None
        ]

    def ended(self) -> str:
        """Which daemon has ended, and how; empty while those that were started run. Any thread may ask."""
        for name, process in (("ovs-vswitchd", self._switch), ("ovsdb-server", self._database)):
            if process is not None and process.poll() is not None:
                return f"{name} has ended ({words_of_exit(process.returncode)})"
        return ""

    def log_tail(self) -> str:
        lines = []
        for log in sorted(self.directory.glob("ovs*.log")):
            lines += log.read_text(errors="replace").splitlines()[-5:]
        return " | ".join(lines)

    @property
    def vswitchd_pid(self) -> int:
        assert self._switch is not None
        return self._switch.pid

    def enlarge_packet_buffers(self) -> int:
        """Give every packet socket of ovs-vswitchd a 32 MiB buffer, and return how many there are.

        In the userspace datapath all ports and levels share one socket for sending. With the system's
        default buffer it overflows long before the queues do, and then drops packets of every level. OVS
        opens the sockets, so this function borrows their descriptors (pidfd_getfd). A higher default for
        the whole machine would remain if the run were killed. Call this once all ports exist and something
        has been sent: OVS opens the sending socket with its first packet.
        """
        pid = self.vswitchd_pid
        libc = ctypes.CDLL(None, use_errno=True)
        pidfd = os.pidfd_open(pid)
        count = 0
        try:
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    target = os.readlink(entry)
                except FileNotFoundError:
                    continue
                if not target.startswith("socket:"):
                    continue
                fd = libc.syscall(_PIDFD_GETFD, pidfd, int(entry.name), 0)
                if fd < 0:
                    raise OSError(ctypes.get_errno(), "pidfd_getfd on ovs-vswitchd")
                with socket.socket(fileno=fd) as sock:
                    if sock.family == socket.AF_PACKET:
                        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SOCKET_BUFFER)
                        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _SOCKET_BUFFER)
                        count += 1
        finally:
            os.close(pidfd)
        return count


_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33


def version() -> str:
    """Return the version of the installed Open vSwitch, or an empty string."""
    if not _which("ovs-vswitchd"):
        return ""
    output = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True, check=False).stdout
    return output.splitlines()[0].rsplit(" ", 1)[-1] if output else ""
