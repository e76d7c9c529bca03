"""What made the cells of a sweep: code, packages and files. All cells of a sweep are made by the same."""

import importlib.metadata
import platform
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import msgspec

from experiments.errors import UserError
from experiments.results.code import code_version, file_digests
from experiments.scenario.files import files_of
from experiments.sweep.plan import Cell

_PACKAGES = ("numpy", "msgspec")
"""Packages that compute the numbers of a simulated cell. The emulated fabric reports its versions itself."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of our source, of plug-ins by entry point and of files by path; versions of packages."""

    source: str
    plugins: dict[str, str]
    packages: dict[str, str]
    files: dict[str, str]


def identity_of(cells: Iterable[Cell]) -> Identity:
    """Return what this process would make `cells` with. Raises `OSError` for a file that cannot be read."""
    code = code_version()
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return Identity(
        source=code.source,
        plugins=code.plugins,
        packages={"python": platform.python_version()} | versions,
        files={str(path): _digest(path) for cell in cells for path in files_of(cell.scenario)},
    )


def check_identity(cell: Cell, planned: Identity) -> None:
    """Raise `UserError` if this process would not make `cell` with what its sweep began with.

    The code or a file may have changed in the meantime, or the process may be on another machine.
    """
    here = identity_of([cell])
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


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_of_version(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _digest_of_version(path: Path, mtime_ns: int, size: int) -> str:
    """A trace can be large, and every cell reads it."""
    return file_digests([path])[str(path)]
