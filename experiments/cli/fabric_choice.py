"""The fabric that `--fabric` or a scenario stands for on this machine."""

import sys
from typing import NamedTuple


class FabricChoice(NamedTuple):
    """The name of a fabric. `notes` explain the choice, for the results.

    `checked` says that the fabric has all that it needs, so that this need not be checked again.
    """

    name: str
    notes: list[str]
    checked: bool


def chosen_fabric(name: str) -> FabricChoice:
    """Return the fabric `name`; for `auto`, the one that suits this machine.

    If `auto` is not the emulated fabric, the reason is also printed on standard error.
    """
    from testbed.fabrics import AUTO, choose

    if name != AUTO:
        return FabricChoice(name, [], checked=False)
    chosen = choose()
    if chosen.note is None:
        return FabricChoice(chosen.name, [], checked=True)
    print(f"mfs: {chosen.note}", file=sys.stderr)
    return FabricChoice(chosen.name, [chosen.note], checked=False)
