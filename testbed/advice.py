"""The commands that install what is missing: in a checkout, and where the package was installed by pip."""

import importlib.metadata
import re
import shlex
import sys
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]
_DISTRIBUTION: Final = "mfs-testbed"


def set_up_again(root: Path = _ROOT) -> str:
    """Return what compiles and installs the testbed again. `root` is where its packages are."""
    if _is_checkout(root):
        return _make_setup(root)
    return "install mfs-testbed again, from the wheel or the sources that it came from"


def install(package: str, requirement: str | None = None, root: Path = _ROOT) -> str:
    """Return what installs a Python package: of the version that we ask for, unless `requirement` says so."""
    if _is_checkout(root):
        return _make_setup(root)
    return shlex.join([sys.executable, "-m", "pip", "install", requirement or _asked_for(package)])


def _is_checkout(root: Path) -> bool:
    return (root / "scripts" / "bootstrap").is_file()


def _make_setup(root: Path) -> str:
    return "make setup" if root == Path.cwd() else f"make -C {shlex.quote(str(root))} setup"


def _asked_for(package: str) -> str:
    """Return the requirement of the testbed on `package`, such as "torch==2.13.0"."""
    for one in importlib.metadata.requires(_DISTRIBUTION) or ():
        requirement = one.partition(";")[0].strip()
        if re.split(r"[^\w.-]", requirement, maxsplit=1)[0] == package:
            return requirement
    return package
