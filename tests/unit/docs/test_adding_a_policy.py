"""docs/policies/adding-a-policy.md, done: its files are written and installed, and its commands are run.

Everything happens in an environment of its own, so that the policies of this process stay as they are.
"""

import json
import os
import re
import subprocess
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "policies" / "adding-a-policy.md").read_text(encoding="utf-8")
FILES = {
    block["name"]: block["text"]
    for block in re.finditer(r"^```\w+\n(?P<text># (?P<name>\S+)\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
}
"""Every block of the page that begins with the name of its file."""

TEST, POLICY, PROJECT = "test_small_first.py", "small_first.py", "pyproject.toml"
SPEC = "small-first(limit_bytes=2000000)"


@dataclass(frozen=True, slots=True)
class Reader:
    """Someone who follows the page: a folder, and an environment that can do all that ours can."""

    folder: Path
    python: Path

    def writes(self, name: str) -> None:
        (self.folder / name).write_text(FILES[name], encoding="utf-8")

    def runs(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        quiet = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=self.folder,
            env=quiet,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def tests(self) -> subprocess.CompletedProcess[str]:
        return self.runs("-m", "pytest", "-p", "no:cacheprovider", TEST)

    def installs(self) -> subprocess.CompletedProcess[str]:
        """`pip install -e .`, with the setuptools that is here instead of one from the network."""
        return self.runs("-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation", "-e", ".")


def reader_in(folder: Path) -> Reader:
    environment, work = folder / "venv", folder / "small-first"
    work.mkdir()
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    site = subprocess.check_output(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    ours = sysconfig.get_path("purelib")
    # `addsitedir` also follows the .pth file by which this checkout is installed itself.
    (Path(site.strip()) / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return Reader(work, python)


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return reader_in(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A reader who has come to the end of section 3."""
    reader = reader_in(tmp_path_factory.mktemp("reader"))
    for name in FILES:
        reader.writes(name)
    installed = reader.installs()
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return reader


def test_the_page_has_three_files() -> None:
    assert list(FILES) == [TEST, POLICY, PROJECT]


def test_the_test_fails_before_the_policy_is_there_and_says_which_name_is_unknown(reader: Reader) -> None:
    reader.writes(TEST)
    ended = reader.tests()
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "2 failed" in ended.stdout
    assert "there is no policy 'small-first'" in ended.stdout


def test_the_test_passes_once_the_package_is_installed(done: Reader) -> None:
    ended = done.tests()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout


def test_mfs_policies_lists_it_with_its_option(done: Reader) -> None:
    listed = done.runs("-c", "from experiments.cli.app import main; main()", "policies")
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if re.match(r"small-first\s", line))
    assert lines[at].endswith("flows under a size go before all others")
    assert lines[at + 1].strip() == "limit_bytes=1000000  flows below this go first, model bytes"


def test_a_scenario_file_can_name_it(done: Reader) -> None:
    (done.folder / "mine.yaml").write_text("extends: quickstart\npolicies: [fair, small-first]\n")
    loaded = done.runs(
        "-c",
        "from experiments.scenario.reading import load_scenario; print(*load_scenario('mine.yaml').policies)",
    )
    assert loaded.stdout.split() == ["fair", "small-first"], loaded.stderr


def test_the_run_of_the_page_names_it_with_an_option(done: Reader) -> None:
    """`mfs run` hands its `--policy` options to the scenario like this; the run itself needs a fabric."""
    command = next(line for line in PAGE.splitlines() if line.startswith("mfs run"))
    assert f'--policy "{SPEC}"' in command
    loaded = done.runs(
        "-c",
        "import sys\n"
        "from experiments.scenario.reading import Override, load_scenario\n"
        "policies = Override('policies', sys.argv[1], '--policy')\n"
        "print(*load_scenario('quickstart', [policies]).policies)\n",
        json.dumps(["fair", SPEC]),
    )
    assert loaded.stdout.split() == ["fair", SPEC], loaded.stderr


def test_without_the_package_a_scenario_that_names_it_is_refused(reader: Reader) -> None:
    (reader.folder / "mine.yaml").write_text("extends: quickstart\npolicies: [fair, small-first]\n")
    refused = reader.runs(
        "-c", "from experiments.scenario.reading import load_scenario; load_scenario('mine.yaml')"
    )
    assert refused.returncode != 0
    assert "there is no policy 'small-first'" in refused.stderr
