"""Which format a file has, and files of no known format."""

from pathlib import Path

import pytest
from trace_files import AZURE, load, mooncake, trace

from experiments.errors import UserError
from experiments.trace_formats import pieces, text_file
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


def test_whoever_listens_hears_how_far_the_reading_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of JSON are told of by lines, here every second one; pieces of cells each, here of 16 bytes."""
    monkeypatch.setattr(text_file, "_TOLD_EVERY_S", 0.0)
    monkeypatch.setattr(text_file, "_TOLD_EVERY_LINES", 2)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 16)
    heard: list[tuple[str, int, int]] = []
    by_line = trace(tmp_path, mooncake(0), mooncake(1), mooncake(2))
    cells = tmp_path / "cells.csv"
    cells.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1\n1,1,1\n2,1,1\n")
    size = cells.stat().st_size

    with text_file.reading_told(lambda path, done, size, _: heard.append((path.name, done, size))):
        load(by_line)
        load(cells)

    assert [done for name, done, _ in heard if name == "cells.csv"][-2:] == [size - 2, size]
    assert {size for name, _, size in heard if name == "trace"} == {by_line.stat().st_size}


def test_the_format_is_seen_in_the_first_line(tmp_path: Path) -> None:
    assert detect_format(trace(tmp_path, mooncake())) is TraceFormat.MOONCAKE
    assert detect_format(trace(tmp_path, AZURE)) is TraceFormat.AZURE
    assert detect_format(trace(tmp_path, '{"timestamp": 1, "messages": []}')) is TraceFormat.MOONCAKE
