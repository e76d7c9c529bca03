"""Damaged files for the `mfs` command: no traceback, hang or flood of memory; errors that name the file.

`python tests/fuzz/fuzz.py --seconds 3600 --seed 1` is what `make fuzz` does. An input that breaks
a rule is kept in the folder that is printed, with the command.
"""

import argparse
import os
import random
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corpus
from mutate import mutated

MOST_S = 60
MOST_BYTES = 2**30
ROOT = Path(__file__).parents[2]


def trouble(directory: Path, name: str, command: tuple[str, ...]) -> str | None:
    """Run `mfs` with `command` in `directory`, and return which rule it broke; None for none.

    The memory of a process is what it had at most.
    """
    began = time.monotonic()
    code = "import sys; from experiments.cli.app import main; main()"
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["nice", sys.executable, "-c", code, *command],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        status, usage = _waited(process, began + MOST_S)
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    if status is None:
        return f"no end within {MOST_S} s"
    if usage.ru_maxrss * 1024 > MOST_BYTES:
        return f"took {usage.ru_maxrss // 1024} MiB"
    if "Traceback (most recent call last)" in said:
        return f"a traceback: {said.splitlines()[-1][:200]}"
    if "\x1b" in said:
        return "an escape character on the terminal"
    if status not in (0, 2):
        return f"exit code {status}: {said[-200:]}"
    # Once a scenario has been read, messages call it by its name, which is that of its file without `.yaml`.
    named = name in said or f"scenario {name.removesuffix('.yaml')}:" in said
    if status == 2 and not named and "--set" not in said:
        return f"an error that does not name {name}: {said[-300:]}"
    return None


def _waited(process: "subprocess.Popen[bytes]", deadline: float) -> tuple[int | None, resource.struct_rusage]:
    """Wait for `process`, with its own use of memory; the status is None if it had to be killed."""
    killed = False
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return None if killed else process.returncode, usage
        if time.monotonic() > deadline and not killed:
            os.killpg(process.pid, signal.SIGKILL)
            killed = True
        time.sleep(0.02)


def fuzz(seed: int, seconds: float) -> int:
    """Try damaged inputs until `seconds` are over. Return how many broke a rule, after printing each."""
    draw = random.Random(seed)
    whole = [*corpus.bombs()]
    tried = broken = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if whole:
            name, raw = whole.pop(0)
        else:
            name = draw.choice(list(corpus.FILES))
            raw = mutated(corpus.FILES[name], draw)
        command = draw.choice(corpus.COMMANDS[name])
        directory = Path(tempfile.mkdtemp(prefix="mfs-fuzz-"))
        corpus.write(directory)
        (directory / name).write_bytes(raw)
        found = trouble(directory, name, command)
        tried += 1
        if found is None:
            subprocess.run(["rm", "-rf", str(directory)], check=True)
            continue
        broken += 1
        print(f"{directory}: mfs {shlex.join(command)}: {found}", flush=True)
    print(f"seed {seed}: {tried} inputs, {broken} broke a rule")
    return broken


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    sys.exit(1 if fuzz(asked.seed, asked.seconds) else 0)
