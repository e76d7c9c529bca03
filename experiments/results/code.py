"""Which code and which files made a result: digests that change when either does."""

import hashlib
import importlib.metadata
import importlib.util
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import msgspec

from controller.policies.registry import ENTRY_POINT_GROUP as POLICIES
from testbed.simulation.paths import ENTRY_POINT_GROUP as PATH_CHOICES

_PACKAGES = ("controller", "workers", "testbed", "experiments")
_ROOT = Path(__file__).parents[2]
_SOURCES = (".py", ".yaml", ".html", ".css")


class CodeVersion(msgspec.Struct, frozen=True, kw_only=True):
    """`source` is a digest of all our source files, `plugins` has one for each entry point of other packages.

    `commit` is that of the checkout the code is in, None where it is in none. `changed`: files of it differ
    from that commit.
    """

    source: str
    commit: str | None
    changed: bool
    plugins: dict[str, str]

    def __str__(self) -> str:
        if self.commit is None:
            return f"source {self.source[:12]}"
        return f"commit {self.commit[:12]}{', changed' if self.changed else ''}"


@cache
def code_version() -> CodeVersion:
    """What this process runs. Read once: what is loaded stays, whatever becomes of the files."""
    commit, changed = checkout_state(_ROOT)
    return CodeVersion(source=source_digest(_ROOT), commit=commit, changed=changed, plugins=_plugins())


def source_digest(root: Path) -> str:
    """SHA-256 over the names and contents of our source files below `root`."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in _SOURCES and path.is_file():
                digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def checkout_state(root: Path) -> tuple[str | None, bool]:
    """The commit of the git checkout `root`, and whether our files differ from it; None where it is none."""
    if not (root / ".git").exists():
        return None, False
    commit = _git(root, "rev-parse", "HEAD")
    return commit, bool(commit and _git(root, "status", "--porcelain", "--", *_PACKAGES))


def file_digests(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by its path. Raises `OSError` for one that cannot be read."""
    found = {}
    for path in dict.fromkeys(paths):
        with path.open("rb") as file:
            found[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _plugins() -> dict[str, str]:
    found = {}
    for group in (POLICIES, PATH_CHOICES):
        for point in importlib.metadata.entry_points(group=group):
            try:
                spec = importlib.util.find_spec(point.module)
            except (ImportError, ValueError):
                spec = None  # it does not load, so nothing can be run with it
            if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
                found[f"{group}: {point.name}"] = file_digests([Path(spec.origin)])[spec.origin]
    return found
