"""A digest of our source files: two machines that run one job have to run the same code."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

_PACKAGES = ("controller", "workers", "testbed", "experiments")
CODE_ROOT = Path(__file__).parents[1]
"""The folder that our packages are in."""
_SOURCES = (".py", ".cpp", ".hpp", ".yaml", ".html", ".css")


def source_digest(root: Path) -> str:
    """Return the SHA-256 of the names and contents of our source files below `root`."""
    return digest_of_files(
        {
            str(path.relative_to(root)): path
            for package in _PACKAGES
            for path in (root / package).rglob("*")
            if path.suffix in _SOURCES and path.is_file()
        }
    )


def digest_of_files(files: Mapping[str, Path]) -> str:
    """Return the SHA-256 of the names of `files` and of what is in them."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name].read_bytes() + b"\0")
    return digest.hexdigest()
