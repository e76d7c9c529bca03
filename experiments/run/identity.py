"""What made the results of a policy: code, packages and files. Results that differ in it are not mixed."""

import importlib.metadata
import platform
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import msgspec

from experiments.results.code import code_version, file_digests
from experiments.scenario.files import files_of
from experiments.scenario.scenario import Scenario

_PACKAGES = ("numpy", "msgspec")
"""Packages that compute the numbers of a simulated run. The emulated fabric reports its versions itself."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of our source, of plug-ins by entry point and of files by path; versions of packages."""

    source: str
    plugins: dict[str, str]
    packages: dict[str, str]
    files: dict[str, str]


def identity_of(scenarios: Iterable[Scenario]) -> Identity:
    """Return what this process would run `scenarios` with. Raises `OSError` for a file it cannot read."""
    code = code_version()
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return Identity(
        source=code.source,
        plugins=code.plugins,
        packages={"python": platform.python_version()} | versions,
        files={str(path): _digest(path) for scenario in scenarios for path in files_of(scenario)},
    )


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_of_version(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _digest_of_version(path: Path, mtime_ns: int, size: int) -> str:
    """A trace can be large, and every cell of a sweep reads it."""
    return file_digests([path])[str(path)]
