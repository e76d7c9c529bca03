"""`replacing`: a file appears whole or not at all."""

import errno
import os
import re
from pathlib import Path

import pytest

from experiments.atomic_file import replacing, write_text


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    target = tmp_path / "summary.json"
    target.write_text("old")

    def fill_the_disk() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half of the n")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as refused:
        fill_the_disk()
    assert refused.value.filename == str(target)  # a write names no file
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_does_not_exist_is_what_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as refused, replacing(tmp_path / "nowhere" / "a.html"):
        pass
    assert refused.value.filename == str(tmp_path / "nowhere")


def test_a_file_that_cannot_be_made_is_named_as_it_was_asked_for(tmp_path: Path) -> None:
    """Its name alone may be 255 characters long, so there is no room for that of the temporary file."""
    target = tmp_path / ("a" * 255)
    with pytest.raises(OSError, match="too long") as refused, replacing(target):
        pass
    assert refused.value.filename == str(target)


def test_an_error_about_the_temporary_file_names_the_file_that_it_was_for(tmp_path: Path) -> None:
    target = tmp_path / "a.html"

    def lose_the_temporary() -> None:
        with replacing(target) as temporary:
            temporary.unlink()

    with pytest.raises(FileNotFoundError) as refused:
        lose_the_temporary()
    assert refused.value.filename == str(target)


def test_a_device_is_not_replaced_and_a_link_is_not_followed(tmp_path: Path) -> None:
    pipe, target, link = tmp_path / "pipe", tmp_path / "target", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(target)
    with pytest.raises(OSError, match="not an ordinary file"), replacing(pipe):
        pass
    target.write_text("old")
    with pytest.raises(OSError, match="a symbolic link is not written to"), replacing(link):
        pass
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert target.read_text() == "old"


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    for mask, mode in ((0o077, 0o600), (0o027, 0o640), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            write_text(tmp_path / "a", "text")
        finally:
            os.umask(before)
        assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_the_content_is_on_the_disk_before_the_file_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    appeared: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: appeared.append((tmp_path / "a").exists()))
    write_text(tmp_path / "a", "text")
    with replacing(tmp_path / "b", durable=False):
        pass
    assert appeared == [False]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_write_that_fails_names_the_file(tmp_path: Path, code: int) -> None:
    with pytest.raises(OSError, match=re.escape(os.strerror(code))) as refused, replacing(tmp_path / "a"):
        raise OSError(code, os.strerror(code))
    assert refused.value.filename == str(tmp_path / "a")
