"""The scale that all policies of a run share, and how it was chosen."""

import msgspec

from experiments.results.machine import Machine
from testbed.job import Scale


class ScaleChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A scale, how it came about (`notes`), and what the machine did in the rehearsal, if there was one."""

    scale: Scale
    notes: tuple[str, ...] = ()
    machine: Machine | None = None
