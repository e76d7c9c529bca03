"""The fabric that `--fabric` or a scenario stands for on this machine."""

import sys
from typing import NamedTuple


class FabricChoice(NamedTuple):
    """`notes` are what there is to say of the choice, for the results. `checked`: the fabric was chosen
    because it has all that it needs, which takes a while to find out."""

    name: str
    notes: list[str]
    checked: bool


def chosen_fabric(name: str) -> FabricChoice:
    """The fabric called `name`, or for `auto` the one that suits this machine; says which, and why."""
    from testbed.fabrics import AUTO, choose

    if name != AUTO:
        return FabricChoice(name, [], checked=False)
    chosen = choose()
    if chosen.note is None:
        return FabricChoice(chosen.name, [], checked=True)
    print(f"mfs: {chosen.note}", file=sys.stderr)
    return FabricChoice(chosen.name, [chosen.note], checked=False)
