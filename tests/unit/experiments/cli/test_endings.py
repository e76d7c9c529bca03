"""The end of the `mfs` command: one message and an exit code."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_fabric import TWO_FLOWS, Mfs, ToyFabric

from controller.flow import Level
from controller.policies import registry
from controller.policy import Policy, Verdict, Verdicts
from controller.view import ActiveFlow, View
from experiments.cli.endings import EXIT_INTERRUPTED
from testbed.fabric import JobRefused, NotOnThisMachine, RunFailed


@pytest.mark.parametrize(
    ("trouble", "code", "told"),
    [
        (
            NotOnThisMachine("90 ranks, at most 64 fit"),
            2,
            "mfs: not on this machine: 90 ranks, at most 64 fit; `--fabric sim` simulates it",
        ),
        (JobRefused("servers: nobody plays h3"), 2, "mfs: servers: nobody plays h3\n"),
        (RunFailed("rank 3 died"), 1, "mfs: the run failed: rank 3 died"),
        (KeyboardInterrupt(), 130, "mfs: interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "mfs: the disk is full: x"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "x"), 1, "mfs: x: cannot be written: Disk quota"),
        (OSError(errno.EFBIG, "File too large"), 1, "mfs: there: cannot be written: File too large"),
        (OSError(errno.EIO, "Input/output error"), 1, "mfs: there: cannot be written: Input/output error"),
        (MemoryError(), 1, "mfs: out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "mfs: out of memory"),
        (OSError(errno.EMFILE, "Too many open files"), 1, "mfs: too many open files"),
    ],
)
def test_a_run_that_does_not_end_well_is_one_message_and_no_directory(
    mfs: Mfs, tmp_path: Path, trouble: BaseException, code: int, told: str
) -> None:
    mfs.fabric(ToyFabric(trouble=trouble))

    assert mfs(*TWO_FLOWS, "--out", "there") == code

    assert told in mfs.err
    assert "Traceback" not in mfs.err
    assert mfs.out == ""
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "quikstart"), "did you mean 'quickstart'?"),
        (("run", "quickstart", "--policy", "fare"), "--policy fare: policies[0]: there is no policy"),
        (("run", "quickstart", "--seed", "-1"), "--seed -1: seed: -1 is out of range"),
        (("run", "quickstart", "--fabric", "x"), "--fabric x: fabric: 'x' is not a known fabric"),
        (("run", "quickstart", "--set", "a.b=1"), "--set a.b=1: unknown key 'a'"),
        (("scenarios", "nowhere.yaml"), "no scenario 'nowhere.yaml'"),
        (("report", "nowhere"), "nowhere"),
        (("run", "quickstart", "--set", f"seed={'9' * 5000}"), "not a value of !!int: '999"),
        (
            ("run", "quickstart", "--set", "name=!!bool maybe"),
            "line 1: not YAML: not a value of !!bool: 'maybe'",
        ),
        (("run", "quickstart", "--set", "name=!!int ''"), "not a value of !!int: ''"),
        (("run", "quickstart", "--set", "name=!!timestamp x"), "not a value of !!timestamp: 'x'"),
        (("run", "quickstart", "--set", ".".join(["a"] * 1000) + "=1"), "has more than 16 parts"),
        (("run", "quickstart", "--set", f"name={'[' * 5000}"), "nested too deeply"),
        (("run", "quickstart", "--set", r'description="\e[31m"'), "has a control character"),
        (("run", "quickstart", "--set", "workload.dispersion=1.0000000001"), "1.001 .. 1000000"),
        (("run", "quickstart", "--policy", "mfs(rho_window_ms=1e300)"), "rho_window_ms must be 0.001 to 1e6"),
        (("sweep", "quickstart", "--over", "seed=0:1e999999"), "numbers of at most 30 digits"),
        (("sweep", "quickstart", "--over", "seed=1:2:1e-999999"), "numbers of at most 30 digits"),
    ],
)
def test_a_slip_is_answered_in_one_message_with_code_2(
    mfs: Mfs, arguments: tuple[str, ...], told: str
) -> None:
    assert mfs(*arguments) == 2

    assert mfs.err.startswith("mfs: ")
    assert told in mfs.err
    assert "Traceback" not in mfs.err


def test_a_long_chain_of_extends_is_refused(mfs: Mfs, tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"c{number}.yaml").write_text(f"extends: c{number + 1}.yaml\n")
    assert mfs("run", "c0.yaml") == 2
    assert (
        mfs.err
        == "mfs: c32.yaml, line 1: extends: c33.yaml: a chain of more than 32 files; put some together\n"
    )


def test_a_directory_that_is_gone_is_told(mfs: Mfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for command in (("run", "two-flows"), ("scenarios",), ("sweep", "two-flows", "--over", "seed=1:2")):
        assert mfs(*command) == 2
        assert mfs.err == "mfs: the working directory does not exist any more: go to another one\n"


def test_no_message_makes_a_terminal_do_anything(mfs: Mfs) -> None:
    assert mfs("run", "\x1b[31mred\x9b1m.yaml") == 2
    assert mfs.err.startswith("mfs: no scenario ")
    assert "\x1b" not in mfs.err
    assert "\x9b" not in mfs.err
    assert mfs("report", "\x1b]0;title\x07") == 2
    assert mfs.err == "mfs: \\x1b]0;title\\x07: not a run directory: it has no summary.json\n"


def test_an_option_that_does_not_exist_is_refused_with_code_2(mfs: Mfs) -> None:
    assert mfs("run", "quickstart", "--sed", "1") == 2


def test_a_full_disk_is_named_by_its_path(mfs: Mfs) -> None:
    """An error while writing to an open file has no path."""
    mfs.fabric(ToyFabric(trouble=OSError(errno.ENOSPC, "No space left on device")))

    assert mfs(*TWO_FLOWS, "--out", "there") == 1
    assert mfs.err.splitlines()[-1] == "mfs: the disk is full: there"


def test_standard_output_that_takes_nothing_is_not_the_disk_of_the_results(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from experiments.cli.app import main; main()", "policies"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == 1
    assert done.stderr == "mfs: standard output cannot be written: No space left on device\n"


class Stumbling(Policy):
    name = "stumbling"
    summary = "fails when a flow is complete"

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        return Verdict(Level.P1, "first come")

    def on_completion(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        return {flow.flow.id: Verdict(Level.P1, str(1 // (now_ns - now_ns)))}


def test_a_policy_of_others_that_fails_is_named_with_its_hook(
    mfs: Mfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._POLICIES, "stumbling", Stumbling)

    assert mfs("run", "two-flows", "--fabric", "sim", "--policy", "stumbling") == 1

    told = "mfs: the run failed: policy 'stumbling' failed in on_completion: ZeroDivisionError: "
    assert mfs.err.splitlines()[-1].startswith(told)
    assert f"({__file__}, line " in mfs.err
    assert "Traceback" not in mfs.err


def test_help_needs_none_of_the_heavy_packages() -> None:
    code = (
        "import sys, experiments.cli.app\n"
        "print([m for m in ('torch', 'numpy', 'pyarrow', 'matplotlib', 'pydantic') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_traceback() -> None:
    code = (
        "import signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *others):\n"
        "        if name == 'typer':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from experiments.cli.entry import main\n"
        "main()"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (EXIT_INTERRUPTED, "", "mfs: interrupted\n")


@pytest.mark.parametrize(
    "module", ["experiments.report.run_report", "experiments.traces.figures", "experiments.validate.page"]
)
def test_figures_without_a_home_that_can_be_written_to_warn_of_nothing(module: str) -> None:
    named = ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
    homeless = {name: value for name, value in os.environ.items() if name not in named}

    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        env=homeless | {"HOME": "/dev/null/nowhere"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == ""


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        [sys.executable, "-c", "from experiments.cli.app import main; main()", "scenarios", "quickstart"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_that_breaks_while_standard_output_is_read_is_not_hidden(mfs: Mfs) -> None:
    mfs.fabric(ToyFabric(trouble=BrokenPipeError(errno.EPIPE, "Broken pipe")))

    with pytest.raises(RuntimeError, match="a pipe broke that is not an output"):
        mfs(*TWO_FLOWS, "--out", "there")
