"""A signal while results are written: nothing that all policies worked for is lost by it."""

import contextlib
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_fabric import TWO_FLOWS, Mfs, ToyFabric

from experiments.report import run_report
from experiments.results import writing
from experiments.run.held_signal import HeldWhileWriting
from experiments.run.run import load_report
from testbed.fabric import RunFailed

TWO_POLICIES = (*TWO_FLOWS, "--policy", "mfs", "--out", "there")
WAITING = "mfs: results are being written to there; a second signal stops at once"


def told_by(text: str) -> list[str]:
    """The lines of `text` without progress: how much of it there is depends on how long writing takes."""
    return [line for line in text.splitlines() if not line.startswith("results: ")]


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """A shell starts what it runs in the background deaf to Ctrl-C, and Python then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[signal.Signals]:
    """What is sent, one after the other, when the tables have been written and the summary has not."""
    sent: list[signal.Signals] = []
    write_tables = writing.write_tables

    def write_and_send(*arguments: Any) -> None:
        write_tables(*arguments)
        for number in sent:
            signal.raise_signal(number)

    monkeypatch.setattr(writing, "write_tables", write_and_send)
    return sent


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [(signal.SIGINT, 130, "mfs: interrupted"), (signal.SIGTERM, 143, "mfs: terminated")],
)
def test_the_first_signal_ends_the_command_after_the_results_are_written(
    mfs: Mfs, tmp_path: Path, signals: list[signal.Signals], number: signal.Signals, code: int, told: str
) -> None:
    signals.append(number)

    assert mfs(*TWO_POLICIES) == code

    assert told_by(mfs.err)[-3:] == [WAITING, told, "the results are in there"]
    assert json.loads((tmp_path / "there" / "summary.json").read_text())["complete"] is True
    assert (tmp_path / "there" / "report.html").is_file()


def test_a_second_signal_stops_at_once_and_the_run_can_go_on(
    mfs: Mfs, tmp_path: Path, signals: list[signal.Signals]
) -> None:
    signals += [signal.SIGTERM, signal.SIGINT]

    assert mfs(*TWO_POLICIES) == 130

    again = f"to go on: mfs {shlex.join(TWO_POLICIES)}"
    assert told_by(mfs.err)[-3:] == [WAITING, "mfs: interrupted", again]
    assert not (tmp_path / "there" / "summary.json").exists()

    signals.clear()
    mfs.fabric(ToyFabric(trouble=RunFailed("nothing is left to run")))
    assert mfs(*TWO_POLICIES) == 0
    assert json.loads((tmp_path / "there" / "summary.json").read_text())["complete"] is True


def test_a_second_signal_in_a_run_of_one_policy_leaves_a_directory_to_delete(
    mfs: Mfs, tmp_path: Path, signals: list[signal.Signals]
) -> None:
    signals += [signal.SIGTERM, signal.SIGINT]

    assert mfs(*TWO_FLOWS, "--out", "there") == 130

    incomplete = "there is incomplete: it has no summary.json of all policies; delete it and run again"
    assert told_by(mfs.err)[-3:] == [WAITING, "mfs: interrupted", incomplete]


def test_a_second_signal_while_the_report_is_made_leaves_whole_results_and_nothing_else(
    mfs: Mfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send_two(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(run_report, "write_report", send_two)
        assert mfs(*TWO_POLICIES) == 130

    assert mfs.err.splitlines()[-1].endswith("perhaps without a report; to make it: mfs report there")
    assert not (tmp_path / "there" / "unfinished").exists()
    assert mfs(*TWO_POLICIES) == 2
    assert "which has finished; mfs report there makes its report, and mfs compare there shows" in mfs.err
    assert mfs("report", "there") == 0
    assert (tmp_path / "there" / "report.html").is_file()


@pytest.mark.parametrize(
    ("trouble", "code"), [(KeyboardInterrupt(), 130), (RunFailed("rank 3 died"), 1)], ids=["ctrl-c", "failed"]
)
def test_a_signal_while_finished_policies_are_written_does_not_hide_what_ended_the_run(
    mfs: Mfs, tmp_path: Path, signals: list[signal.Signals], trouble: BaseException, code: int
) -> None:
    mfs.fabric(ToyFabric(trouble=trouble, in_policy="mfs"))
    signals.append(signal.SIGTERM)

    assert mfs(*TWO_POLICIES) == code

    assert WAITING in mfs.err.splitlines()
    assert mfs.err.splitlines()[-2] == "results of fair are in there; mfs did not finish"
    assert json.loads((tmp_path / "there" / "summary.json").read_text())["unfinished"] == ["mfs"]


def test_a_second_signal_after_the_summary_leaves_results_that_lack_only_the_report(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"complete": true}')

    def two_signals() -> None:
        with HeldWhileWriting(tmp_path):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as stopped:
        two_signals()

    [note] = stopped.value.__notes__
    assert note.endswith(f"to make it: mfs report {tmp_path}")


def test_handlers_are_as_before_after_the_block(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    with HeldWhileWriting(tmp_path) as held:
        pass
    held.deliver("nothing was held")

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_ignored_signal_stays_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with HeldWhileWriting(tmp_path) as held:
            signal.raise_signal(signal.SIGINT)
        held.deliver("nothing was held")
    finally:
        signal.signal(signal.SIGINT, before)

    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_process_that_is_terminated_while_it_writes_leaves_results_to_report_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from experiments.cli.app import main; main()"]
    run = subprocess.Popen(
        [*command, "run", "two-flows", "--fabric", "sim", "--out", "there"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not (tmp_path / "there" / "flows.parquet").exists() and run.poll() is None:
            time.sleep(0.001)
        run.terminate()
        told = told_by(run.communicate(timeout=120)[1])
    finally:
        run.kill()

    assert run.returncode == 143
    assert told[-3:] == [WAITING, "mfs: terminated", "the results are in there"]
    assert json.loads((tmp_path / "there" / "summary.json").read_text())["complete"] is True
    assert (tmp_path / "there" / "report.html").is_file()


class _SwallowsAll:
    """Finds no module, and swallows a Ctrl-C meanwhile, as some libraries do while they load."""

    def find_spec(self, *_: object) -> None:
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)


class _Impatient:
    """Sends Ctrl-C twice when a module is looked for."""

    sent = 0

    def find_spec(self, name: str, *_: object) -> None:
        while name == "experiments.report.run_report" and self.sent < 2:
            self.sent += 1
            signal.raise_signal(signal.SIGINT)


def test_a_second_ctrl_c_does_not_leave_the_report_half_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is through could not be written then: libraries that loaded in part cannot be loaded again."""
    monkeypatch.delitem(sys.modules, "experiments.report.run_report", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Impatient(), *sys.meta_path])

    with pytest.raises(KeyboardInterrupt):
        load_report()
    assert "experiments.report.run_report" in sys.modules


def test_ctrl_c_while_the_report_is_loaded_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "experiments.report.run_report", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_SwallowsAll(), *sys.meta_path])

    with pytest.raises(KeyboardInterrupt):
        load_report()
