"""Which format a file has, and files of no known format."""

from pathlib import Path

import pytest
from trace_files import AZURE, mooncake, trace

from experiments.errors import UserError
from experiments.trace_formats.formats import TraceFormat, detect_format


def test_files_that_are_no_trace_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    for name, told in (
        ("empty", "is empty"),
        ("binary", "not a text file"),
        ("nowhere", "there is no such trace file"),
        (".", "is a directory"),
    ):
        with pytest.raises(UserError, match=told):
            detect_format(tmp_path / name)


def test_the_format_is_seen_in_the_first_line(tmp_path: Path) -> None:
    assert detect_format(trace(tmp_path, mooncake())) is TraceFormat.MOONCAKE
    assert detect_format(trace(tmp_path, AZURE)) is TraceFormat.AZURE
