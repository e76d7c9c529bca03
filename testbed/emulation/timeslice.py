"""Short time slices on the CPU for everything in a sandbox.

A run has some forty threads on a few cores, and almost all of them only pass something on: a permit, a
packet, an acknowledgement. With the kernel's usual time slices of about 3 ms, a thread that needs 50 us
first waits for the slices of all others. Such waits make up the latency of a permit.
"""

import ctypes
import os
import platform
import struct

TURN_NS = 100_000
"""The shortest time slice that the kernel grants."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""`struct sched_attr` of sched_setattr(2): size, policy, flags, nice, priority, runtime, deadline, period."""


def take_short_turns() -> bool:
    """Ask for time slices of `TURN_NS` for this thread and all that it starts from now on.

    Linux has this since 6.12 (`sched_runtime` under `SCHED_OTHER`). An older kernel accepts the call and
    changes nothing. Returns False if the call is refused or its number is unknown. A run then uses the
    machine's usual time slices, and its fidelity checks show whether they are short enough.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, TURN_NS, 0, 0)
    return bool(ctypes.CDLL(None).syscall(number, 0, ctypes.c_char_p(attributes), 0) == 0)
