"""Fixtures for tests of several rooms: the `mfs` command in this process, and a model in a directory."""

from pathlib import Path

import pytest
from config_files import write_config
from toy_fabric import Mfs, ToyFabric


@pytest.fixture
def mfs(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Mfs:
    """The command, with a fabric `toy` in addition to the others."""
    monkeypatch.chdir(tmp_path)
    command = Mfs(monkeypatch, capfd)
    command.fabric(ToyFabric())
    return command


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A directory with the `config.json` of Llama-3-8B."""
    folder = tmp_path / "llama-3-8b"
    folder.mkdir()
    write_config(folder / "config.json")
    return folder
