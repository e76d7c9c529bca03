"""Which format a file has, and files of no known format."""

from pathlib import Path

import pytest
from trace_files import AZURE, mooncake, trace

from experiments.errors import UserError
from experiments.trace_formats.formats import TraceFormat, detect_format


def test_files_that_are_no_trace_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "gzip").write_bytes(b"\x1f\x8b\x08\x00\xff")
    (tmp_path / "table").write_bytes(b"PAR1\x15\x04\xff")
    (tmp_path / "lfs").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n")
    (tmp_path / "annex").write_text("/annex/objects/SHA256E-s12--4d7a.jsonl\n")
    (tmp_path / "other").write_text('{"time": 3}\n')

    for name, told in (
        ("empty", "is empty"),
        ("binary", "not a text file"),
        ("gzip", "compressed by gzip: decompress it first"),
        ("table", "a Parquet file"),
        ("lfs", "a pointer of Git LFS, not the trace: .* git lfs pull"),
        ("annex", "a pointer of git-annex, not the trace"),
        ("other", "not the start of a known trace .*mooncake: input_length or"),
        ("nowhere", "there is no such trace file"),
        (".", "is a directory"),
    ):
        with pytest.raises(UserError, match=told):
            detect_format(tmp_path / name)


def test_the_format_is_seen_in_the_first_line(tmp_path: Path) -> None:
    assert detect_format(trace(tmp_path, mooncake())) is TraceFormat.MOONCAKE
    assert detect_format(trace(tmp_path, AZURE)) is TraceFormat.AZURE
    assert detect_format(trace(tmp_path, '{"timestamp": 1, "messages": []}')) is TraceFormat.MOONCAKE
