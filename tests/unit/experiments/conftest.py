"""The `mfs` command for the tests of all rooms: it runs in this process, in an empty directory."""

from pathlib import Path

import pytest
from toy_fabric import Mfs, ToyFabric


@pytest.fixture
def mfs(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Mfs:
    """With a fabric `toy` besides the others."""
    monkeypatch.chdir(tmp_path)
    command = Mfs(monkeypatch, capfd)
    command.fabric(ToyFabric())
    return command
