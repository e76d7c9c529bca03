"""The code and the files that made a result, as digests that change when either changes."""

import hashlib
import importlib.metadata
import importlib.util
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import msgspec

from controller.policies.registry import ENTRY_POINT_GROUP as POLICIES
from controller.sources import CODE_ROOT, digest_of_files, source_digest
from experiments.named_file import open_ordinary
from testbed.simulation.paths import ENTRY_POINT_GROUP as PATH_CHOICES

_PACKAGES = ("controller", "workers", "testbed", "experiments")


class CodeVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The version of the code. `source` is a digest of all our source files.

    `plugins` has a digest of the package of each entry point for policies and path choices, by group and
    name. `commit` is the commit of the git checkout, None if the code is not in one. `changed` says whether
    files of the code differ from that commit.
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
    """Return the version of the code that this process runs. It is read once, because files may change."""
    commit, changed = checkout_state(CODE_ROOT)
    return CodeVersion(source=source_digest(CODE_ROOT), commit=commit, changed=changed, plugins=_plugins())


def checkout_state(root: Path) -> tuple[str | None, bool]:
    """Return the commit of the checkout `root`, and whether our files differ from it.

    Without a git checkout, these are None and False.
    """
    if not (root / ".git").exists():
        return None, False
    commit = _git(root, "rev-parse", "HEAD")
    return commit, bool(commit and _git(root, "status", "--porcelain", "--", *_PACKAGES))


def file_digests(paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path.

    Raises `OSError` for a file that cannot be read, and `UserError` for one that is not an ordinary file.
    """
    found = {}
    for path in dict.fromkeys(paths):
        with open_ordinary(path) as file:
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
            files = _files_of_module(point.module.partition(".")[0])
            if files:
                found[f"{group}: {point.name}"] = digest_of_files(files)
    return found


def _files_of_module(name: str) -> dict[str, Path]:
    """The Python files of a module or package, by their names in it; none if it cannot be found."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return {}  # it does not load, so no run can use it
    if spec is None:
        return {}
    roots = [Path(root) for root in spec.submodule_search_locations or ()]
    if not roots:
        return {Path(spec.origin).name: Path(spec.origin)} if spec.origin and spec.has_location else {}
    return {str(path.relative_to(root)): path for root in roots for path in root.rglob("*.py")}
