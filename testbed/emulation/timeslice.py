"""Short turns on the CPU for everything in a sandbox.

A run is some forty threads on a few cores, and almost all of them only pass something on: a permit, a packet,
an acknowledgement. With the kernel's usual turns of about three milliseconds, a thread that needs fifty
microseconds waits for the turns of all others first, and that wait is what a permit's latency consists of.
"""

import ctypes
import os
import platform
import struct

TURN_NS = 100_000
"""The shortest turn that the kernel grants."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""`struct sched_attr` of sched_setattr(2): size, policy, flags, nice, priority, runtime, deadline, period."""


def take_short_turns() -> bool:
    """Ask for turns of `TURN_NS` for this thread and whatever it starts from now on.

    Linux knows this since 6.12 (`sched_runtime` under `SCHED_OTHER`); an older kernel takes the call and goes
    on as before. Returns False where the call is refused or its number is not known: a run is then as good
    as the machine's usual turns let it be, and its fidelity says so.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, TURN_NS, 0, 0)
    return bool(ctypes.CDLL(None).syscall(number, 0, ctypes.c_char_p(attributes), 0) == 0)
