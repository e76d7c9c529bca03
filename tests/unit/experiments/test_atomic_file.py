"""`replacing`: a file appears whole or not at all."""

import os
from pathlib import Path

import pytest

from experiments.atomic_file import replacing


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    target = tmp_path / "summary.json"
    target.write_text("old")

    def fill_the_disk() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half of the n")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fill_the_disk()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_device_is_not_replaced_and_a_link_is_followed(tmp_path: Path) -> None:
    pipe, target, link = tmp_path / "pipe", tmp_path / "target", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(target)
    with pytest.raises(OSError, match="not an ordinary file"), replacing(pipe):
        pass
    with replacing(link) as temporary:
        temporary.write_text("new")
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert target.read_text() == "new"
