"""Files that a user names: only ordinary ones are read, and none that is larger than it can sensibly be."""

import json
import os
import socket
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from toy_fabric import Mfs

from experiments import yaml_file
from experiments.errors import UserError
from experiments.named_file import named_bytes, named_text, open_ordinary
from experiments.trace_formats import lines, text_file


def test_a_file_of_the_most_bytes_is_read_and_one_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"x" * 2048)
    assert named_bytes(path, most_bytes=2048) == b"x" * 2048
    path.write_bytes(b"x" * 2049)
    with pytest.raises(UserError, match=r"a\.yaml: larger than 2 KiB"):
        named_bytes(path, most_bytes=2048)


def test_lines_end_as_python_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a\r\nb\rc\n")
    assert named_text(path, most_bytes=100) == path.read_text() == "a\nb\nc\n"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/dev/zero", "this is a device"),
        ("/proc/self/mem", "cannot be read: Input/output error"),
        ("/nowhere/file", "no such file"),
        ("/dev/null/file", "cannot be read: Not a directory"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        named_bytes(Path(name), most_bytes=100, source="extends: base")
    assert str(refused.value).startswith(f"extends: base: {told}")


def test_pipes_sockets_and_directories_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, kind in ((tmp_path, "a directory"), ("pipe", "a pipe"), ("socket", "a socket")):
            with pytest.raises(UserError, match=f"this is {kind}, and an ordinary file is needed"):
                open_ordinary(tmp_path / path)


def test_a_file_of_the_kernel_is_bounded_although_it_says_that_it_is_empty() -> None:
    with pytest.raises(UserError, match="larger than 0 KiB"):
        named_bytes(Path("/proc/self/maps"), most_bytes=10)


NAMED: dict[str, Callable[[str], tuple[str, ...]]] = {
    "scenario": lambda path: _run(path),
    "extends": lambda path: _run(_extending(path)),
    "calibration": lambda path: _run("two-flows", f"simulation.calibration={path}"),
    "model": lambda path: _run("quickstart", f"model={path}"),
    "gpu": lambda path: _run("quickstart", f"gpu={path}"),
    "network": lambda path: _run(
        "quickstart", "topology.kind=file", "topology.format=links", f"topology.path={path}"
    ),
    "trace": lambda path: _run("quickstart", f"workload.path={path}"),
    "coflows": lambda path: _run("coflow-small", "workload.kind=coflows", f"workload.path={path}"),
    "described trace": lambda path: ("workload", "describe", path),
}


def _run(scenario: str, *settings: str) -> tuple[str, ...]:
    return ("run", scenario, "--fabric", "sim", *(word for text in settings for word in ("--set", text)))


def _extending(path: str) -> str:
    Path("mine.yaml").write_text(f"extends: {json.dumps(path)}\n")
    return "mine.yaml"


@pytest.mark.parametrize("kind", NAMED)
def test_no_command_waits_for_a_pipe_or_reads_a_device(mfs: Mfs, tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path, what in ((str(tmp_path / "pipe.yaml"), "a pipe"), ("/dev/zero", "a device")):
        assert (
            mfs(*NAMED[kind](path), *(("--fabric", "sim") if NAMED[kind](path)[0] != "workload" else ())) == 2
        )
        assert path in mfs.err
        assert f"this is {what}, and an ordinary file is needed" in mfs.err


@pytest.mark.parametrize("kind", ["scenario", "extends", "calibration", "model", "gpu", "network"])
def test_no_command_reads_a_hundred_megabytes_of_what_is_small(mfs: Mfs, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(100 * 2**20)
    assert mfs(*NAMED[kind](str(path))) == 2
    assert f"{path}: larger than " in mfs.err


def test_aliases_that_repeat_too_much_are_refused() -> None:
    """Nine lists of nine aliases each are 9 ** 9 values in 200 bytes."""
    names = "abcdefghi"
    text = f"a: &a [{', '.join('x' * 9)}]\n"
    for above, name in pairwise(names):
        text += f"{name}: &{name} [{', '.join([f'*{above}'] * 9)}]\n"
    with pytest.raises(UserError, match=r"its aliases \(\*name\) expand to"):
        yaml_file.parse(text, "bomb.yaml")


def test_a_line_of_a_trace_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "MOST_LINE_CHARACTERS", 100)
    path = tmp_path / "trace"
    path.write_text("short\n" + "x" * 98 + "\n")
    assert len(text_file.read_lines(path)) == 2
    path.write_text("short\n" + "x" * 101 + "\n")
    with pytest.raises(UserError, match="trace, line 2: longer than 100 characters"):
        text_file.read_lines(path)


def test_an_array_that_is_no_json_is_not_decoded_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_LARGEST_ITEM", 100)
    monkeypatch.setattr(lines, "_ENOUGH", 10)
    path = tmp_path / "trace.json"
    path.write_text("[" + '{"id": "' + "x\\n\n" * 100)
    with pytest.raises(UserError, match="after item 0: not JSON, or larger than 100 characters"):
        list(lines.json_array_rows(path, lambda row, where: ()))
