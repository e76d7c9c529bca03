"""What a user has that hides our packages from `import mfs`, though it does the command no harm."""

from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

import controller
import experiments
import testbed
import workers

_ROOMS: Final = (controller, workers, testbed, experiments)


def hidden_by(folder: Path) -> list[str]:
    """Say what in `folder` hides a package of ours from a script or a notebook there. Empty: nothing."""
    found = []
    for room in _ROOMS:
        spec = PathFinder.find_spec(room.__name__, [str(folder)])
        if spec is None:
            continue
        place = Path(spec.origin) if spec.origin else folder / room.__name__
        place = place.parent if place.name == "__init__.py" else place
        if place.resolve() != Path(str(room.__file__)).parent.resolve():
            found.append(f"{place} hides our package {room.__name__!r} from Python there: rename it")
    return found
