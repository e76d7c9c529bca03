"""The lock files have everything that pyproject.toml asks for, and nothing without a hash."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("lock.txt", "torch.txt", "torch-cpu.txt", "ryu.txt", "ryu-build.txt", "os-ken.txt")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    """The version of each package in a lock file."""
    text = (ROOT / "requirements" / name).read_text()
    return {str(canonicalize_name(package)): version for package, version in _PIN.findall(text)}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_in_a_lock_file_has_one_version_and_hashes(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    assert joined
    for requirement in joined:
        assert re.match(r"^[A-Za-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", requirement), requirement


def test_what_make_setup_needs_is_locked_in_versions_that_pyproject_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    build = project["build-system"]["requires"]
    wanted = [*project["project"]["dependencies"], *extras["emulation"], *extras["dev"], *build]
    locked = pins("lock.txt") | pins("torch.txt")
    for text in wanted:
        requirement = Requirement(text)
        version = locked[str(canonicalize_name(requirement.name))]
        assert requirement.specifier.contains(version, prereleases=True), (text, version)


def test_ryu_gets_what_it_needs_and_is_built_with_an_old_setuptools() -> None:
    lines = (ROOT / "requirements" / "ryu.in").read_text().splitlines()
    needs = [Requirement(line) for line in lines if line and not line.startswith("#")]
    locked = pins("lock.txt")
    assert [need.name for need in needs if str(canonicalize_name(need.name)) not in locked] == []
    assert int(pins("ryu-build.txt")["setuptools"].split(".")[0]) < 67
