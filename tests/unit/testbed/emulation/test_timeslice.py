"""Short time slices on the CPU, as the kernel reports them."""

import platform
import subprocess
import sys

import pytest

_SHOW = """
import os, re, sys
from testbed.emulation.timeslice import take_short_turns
os.setpriority(os.PRIO_PROCESS, 0, 3)
took = take_short_turns()
sched = open("/proc/self/sched").read()
child = os.popen("grep se.slice /proc/self/sched").read()
turn = re.search(r"se.slice +: +(\\d+)", sched)[1]
print(took, os.getpriority(os.PRIO_PROCESS, 0), turn, child.split()[-1])
"""


def _knows_turns() -> bool:
    try:
        with open("/proc/self/sched") as file:
            told = "se.slice" in file.read()
    except OSError:
        return False
    release = tuple(int(part) for part in platform.release().split(".")[:2])
    return told and release >= (6, 12) and platform.machine() in ("x86_64", "aarch64")


@pytest.mark.skipif(not _knows_turns(), reason="this kernel does not have or show time slices per thread")
def test_a_process_and_what_it_starts_take_short_turns_and_keep_their_priority() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", _SHOW], check=True, capture_output=True, text=True, timeout=60
    ).stdout.split()
    assert shown == ["True", "3", "100000", "100000"]
