"""Waits until something can be read from a descriptor."""

import math
import select
from typing import Protocol


class HasDescriptor(Protocol):
    def fileno(self) -> int: ...


def readable(source: int | HasDescriptor, timeout_s: float) -> bool:
    """Return whether `source` can be read, or has ended, within `timeout_s`, rounded up to milliseconds.

    `select.select` refuses descriptors from 1,024 on, which a process with many connections has.
    """
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(math.ceil(timeout_s * 1000)))
