"""Whether Python finds our packages, or others of the same names in the user's folder.

`controller`, `workers`, `testbed` and `experiments` are common names. Python looks in the folder of a script,
and of a notebook, before it looks among the installed packages.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

ROOMS: Final = ("controller", "workers", "testbed", "experiments")
_HOME: Final = Path(__file__).resolve().parents[1]


def refuse_others(home: Path = _HOME) -> None:
    """Raise `ImportError` if one of `ROOMS` would not be imported from `home`, where this package is."""
    for room in ROOMS:
        found = _place_of(room)
        if found is None:
            raise ImportError(f"mfs needs its package {room!r}, which is not installed beside it in {home}")
        if found != home / room:
            raise ImportError(
                f"{found} hides the package {room!r} that mfs needs from {home}: rename it, or start Python"
                " in another folder"
            )


def _place_of(room: str) -> Path | None:
    """Return the folder, or the file, that `import room` loads or has loaded; None if there is none."""
    loaded = sys.modules.get(room)
    spec = find_spec(room) if loaded is None else loaded.__spec__
    if spec is None:
        file = getattr(loaded, "__file__", None)
        return Path(file).resolve() if file else None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec.origin else None
