"""The first process of a rehearsal's sandbox: builds the namespaces, and gives the commands of a real run.

`mfs run` runs in the namespace of this process, as on the coordinator of a cluster; one torchrun runs on each
server. When this process ends, the kernel ends everything else in the sandbox.
"""

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Final

import msgspec

from controller.curve_files import make_keys
from controller.flow import Level
from testbed.cluster.inventory import Coordinator, Inventory
from testbed.cluster.namespaces import MANAGEMENT, Namespaces
from testbed.cluster.rehearsal import Rehearsal
from testbed.emulation.sandbox import SCRATCH
from testbed.emulation.timeslice import take_short_turns

_MFS: Final = (sys.executable, "-P", "-c", "from experiments.cli.app import main; main()")
_SAMPLE_S = 0.25
_LEAVE_S = 30.0
_TAIL = 15
_NOISE = "The hostname of the client socket cannot be retrieved"
"""PyTorch warns so of every connection here, and it would hide what went wrong."""


def main() -> int:
    rehearsal = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Rehearsal)
    subprocess.run(["mount", "-t", "tmpfs", "mfs", str(SCRATCH)], check=True)
    directory = Path(SCRATCH) / "rehearsal"
    directory.mkdir()
    namespaces = Namespaces(rehearsal.network)
    hosts = directory / "hosts"
    hosts.write_text(namespaces.hosts_file())
    subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
    os.environ["TMPDIR"] = str(directory)  # torchrun, too, leaves nothing outside of the sandbox
    take_short_turns()  # inherited by every process of the run
    inventory = _inventory(directory, namespaces)
    words = _command(rehearsal, inventory)
    with_ranks = words[words.index("--nnodes") + 1]
    servers = list(namespaces.pids)[: int(with_ranks)]
    logs = {server: directory / f"{server}.log" for server in servers}
    print(f"rehearsing on {', '.join(servers)}: {shlex.join(words)}", flush=True)
    run = subprocess.Popen(
        [*_MFS, "run", *rehearsal.arguments, *_options(inventory, rehearsal)],
        stdin=subprocess.DEVNULL,
    )
    agents = {server: _start(namespaces, server, words, logs[server]) for server in servers}
    watch = QueueWatch(namespaces, rehearsal.queues)
    watch.start()
    code = _wait(run, agents, most_gone=len(agents) - 1 if rehearsal.elastic else 0)
    watch.stop()
    if watch.trouble is not None:
        where = f"{watch.trouble.strerror} (after {watch.samples} samples)"
        print(f"mfs: --queues {rehearsal.queues}: {where}; the file is not complete", file=sys.stderr)
        code = code or 1
    if any(agent.poll() for agent in agents.values()) and code == 0:
        agents = {}  # at its end, torchrun waits for five minutes for a server that was lost
    for server, agent in agents.items():
        try:
            agent.wait(_LEAVE_S if code == 0 else 5.0)
        except subprocess.TimeoutExpired:
            print(f"the agents of {server} have not ended", file=sys.stderr)
            code = code or 1
    if code:
        _show(logs)
    else:
        print(watch.summary())
    return code


def _options(inventory: Path, rehearsal: Rehearsal) -> list[str]:
    options = ["--fabric", "cluster", "--inventory", str(inventory), "--out", rehearsal.out]
    return [*options, "--elastic"] if rehearsal.elastic else options


def _inventory(directory: Path, namespaces: Namespaces) -> Path:
    make_keys(directory / "keys")
    inventory = Inventory(
        coordinator=Coordinator(address=MANAGEMENT), servers=tuple(namespaces.machines()), keys="keys"
    )
    path = directory / "cluster.yaml"
    # JSON is YAML, too.
    path.write_text(json.dumps(msgspec.to_builtins(inventory), indent=2))
    return path


def _command(rehearsal: Rehearsal, inventory: Path) -> list[str]:
    """The words that `mfs cluster command` prints."""
    done = subprocess.run(
        [*_MFS, "cluster", "command", *rehearsal.arguments, "--inventory", str(inventory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)
    return shlex.split(done.stdout)


def _start(namespaces: Namespaces, server: str, words: list[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as stream:
        return subprocess.Popen(
            namespaces.inside(server, words), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )


def _wait(
    run: "subprocess.Popen[bytes]", agents: dict[str, "subprocess.Popen[bytes]"], most_gone: int
) -> int:
    """Wait for `mfs run`. It learns itself of agents that end, unless they have never come to it.

    Those of `most_gone` servers may end.
    """
    while run.poll() is None:
        time.sleep(0.2)
        early = [server for server, agent in agents.items() if agent.poll() not in (None, 0)]
        if len(early) > most_gone:
            try:
                run.wait(15.0)  # if it knows of them, it says more
            except subprocess.TimeoutExpired:
                print(f"torchrun has ended on {', '.join(early)}", file=sys.stderr)
                run.kill()
                return 1
    if run.returncode < 0:
        print(f"mfs run was ended by signal {-run.returncode}", file=sys.stderr)
        return 1
    return run.returncode


def _show(logs: dict[str, Path]) -> None:
    for server, log in logs.items():
        lines = [line for line in log.read_text(errors="replace").splitlines() if _NOISE not in line][-_TAIL:]
        if lines:
            print(f"--- torchrun on {server}", *lines, sep="\n", file=sys.stderr)


class QueueWatch:
    """Reads the queues a few times a second, and writes what they have sent to a file, if there is one."""

    def __init__(self, namespaces: Namespaces, path: str | None) -> None:
        self._namespaces = namespaces
        self._path = path
        self.trouble: OSError | None = None
        """What went wrong with the file."""
        self.samples = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queues", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def summary(self) -> str:
        """What all ports have sent, by level."""
        sent = [0] * len(Level)
        drops = 0
        for counters in self._namespaces.counters().values():
            drops += sum(counters.drops)
            for level in Level:
                sent[level] += counters.sent_bytes[level]
        parts = [f"{level.name} {sent[level] / 1e6:.2f} MB" for level in Level if sent[level]]
        return f"queues sent: {', '.join(parts)}; {drops} packets dropped"

    def _run(self) -> None:
        if self._path is None:
            return
        try:
            with open(self._path, "w", encoding="utf-8") as file:
                while not self._stop.wait(_SAMPLE_S):
                    self._sample(file)
                self._sample(file)
        except OSError as error:
            self.trouble = error

    def _sample(self, file: IO[str]) -> None:
        wall_ns = time.monotonic_ns()
        ports = {port: counters.sent_bytes for port, counters in self._namespaces.counters().items()}
        file.write(json.dumps({"wall_ns": wall_ns, "sent_bytes": ports}) + "\n")
        file.flush()
        self.samples += 1


if __name__ == "__main__":
    sys.exit(main())
