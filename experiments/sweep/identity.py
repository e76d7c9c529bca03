"""Whether a cell would be made by what its sweep began with. All cells of a sweep are made by the same."""

from experiments.errors import UserError
from experiments.run.identity import Identity, identity_of
from experiments.sweep.plan import Cell


def check_identity(cell: Cell, planned: Identity) -> None:
    """Raise `UserError` if this process would not make `cell` with what its sweep began with.

    The code or a file may have changed in the meantime, or the process may be on another machine.
    """
    here = identity_of([cell.scenario])
    changed = [path for path, digest in here.files.items() if planned.files.get(path) != digest]
    if changed:
        raise UserError(f"{', '.join(changed)} has changed since the sweep began")
    for what, now, then in (
        ("code", here.source, planned.source),
        ("plug-ins", here.plugins, planned.plugins),
        ("packages", here.packages, planned.packages),
    ):
        if now != then:
            raise UserError(f"the process of this cell has other {what} than the sweep began with")
