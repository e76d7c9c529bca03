"""The fabric that `--fabric` or a scenario stands for on this machine."""

import sys
from typing import NamedTuple


class FabricChoice(NamedTuple):
    """The name of a fabric. `notes` explain the choice, for the results."""

    name: str
    notes: list[str]


def chosen_fabric(name: str) -> FabricChoice:
    """Return the fabric `name`; for `auto`, the one that suits this machine.

    If `auto` is not the emulated fabric, the reason is also printed on standard error.
    """
    from testbed.fabrics import AUTO, choose

    if name != AUTO:
        return FabricChoice(name, [])
    chosen = choose()
    if chosen.note is None:
        return FabricChoice(chosen.name, [])
    print(f"mfs: {chosen.note}", file=sys.stderr)
    return FabricChoice(chosen.name, [chosen.note])
