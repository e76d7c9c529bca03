"""The fabric that `--fabric` or a scenario stands for on this machine."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.fabrics import Chosen


def chosen_fabric(name: str) -> "Chosen":
    """Return the fabric `name`; for `auto`, the one that suits this machine.

    If `auto` is not the emulated fabric, the reason is also printed on standard error.
    """
    from testbed.fabrics import chosen

    choice = chosen(name)
    if choice.note is not None:
        print(f"mfs: {choice.note}", file=sys.stderr)
    return choice
