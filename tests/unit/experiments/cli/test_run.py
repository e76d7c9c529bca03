"""The `mfs` command: what it prints where, and how it ends. Runs use a toy fabric."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_fabric import Mfs, ToyFabric

from controller.flow import Level
from controller.policies import registry
from controller.policy import Policy, Verdict, Verdicts
from controller.view import ActiveFlow, View
from testbed.fabric import JobRefused, Requirement, RunFailed
from testbed.fabrics import FABRICS

ROOT = Requirement(name="root", ok=False, detail="this is user 7", fix="sudo")
OVS = Requirement(name="Open vSwitch", ok=False, detail="absent", fix="apt install openvswitch-switch")


@pytest.fixture
def mfs(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Mfs:
    monkeypatch.chdir(tmp_path)
    command = Mfs(monkeypatch, capfd)
    command.fabric(ToyFabric())
    return command


TWO_FLOWS = ("run", "two-flows", "--fabric", "toy", "--policy", "fair")


def test_json_is_all_there_is_on_standard_output(mfs: Mfs) -> None:
    """1.25e9 bytes * 8 / 10 Gb/s = 1 s from start to finish."""
    code = mfs(*TWO_FLOWS, "--json", "--seed", "9", "--out", "there")

    summary: dict[str, Any] = json.loads(mfs.out)
    assert code == 0
    assert (summary["scenario"], summary["fabric"], summary["seed"]) == ("two-flows", "toy", 9)
    assert summary["scale"] == {"time_dilation": 2.0, "bytes_scale": 0.01}
    assert [(f["id"], f["finish_s"]) for f in summary["runs"][0]["flows"]] == [
        ("fetch", 1.0),
        ("deliver", 1.0),
    ]
    assert "noise of some tool" in mfs.err
    assert "fair: sending 0/2" in mfs.err


def test_without_json_a_table_and_the_path_of_the_report_are_printed(mfs: Mfs, tmp_path: Path) -> None:
    code = mfs(*TWO_FLOWS, "--out", "there")

    assert code == 0
    assert "fair" in mfs.out
    assert mfs.out.splitlines()[-1] == "report: there/report.html"
    assert (tmp_path / "there" / "report.html").is_file()
    assert (tmp_path / "there" / "summary.json").is_file()


def test_the_run_directory_holds_the_scenario_as_it_was_run(mfs: Mfs) -> None:
    assert mfs(*TWO_FLOWS, "--set", "topology.servers=5", "--out", "there") == 0
    assert mfs("scenarios", "there/scenario.yaml") == 0

    assert "servers: 5" in mfs.out
    assert "policies: [fair]" in mfs.out


def test_runs_get_directories_of_their_own(mfs: Mfs, tmp_path: Path) -> None:
    assert mfs(*TWO_FLOWS) == 0
    assert mfs(*TWO_FLOWS) == 0

    made = [path.name for path in (tmp_path / "runs").iterdir()]
    assert len(made) == 2
    assert all("-two-flows" in name for name in made)


def test_a_directory_with_something_in_it_is_refused_and_left_alone(mfs: Mfs, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("keep")

    assert mfs(*TWO_FLOWS, "--out", "mine") == 2

    assert "mfs: --out mine: is not empty" in mfs.err
    assert "sending" not in mfs.err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes"]


def test_a_file_in_place_of_the_directory_is_refused(mfs: Mfs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert mfs(*TWO_FLOWS, "--out", "file") == 2
    assert "is a file" in mfs.err
    assert mfs(*TWO_FLOWS, "--out", "file/below") == 2
    assert "cannot write results there" in mfs.err


def test_a_fabric_that_lacks_something_says_what_installs_it(mfs: Mfs, tmp_path: Path) -> None:
    mfs.fabric(ToyFabric(needs=(OVS,)))

    assert mfs(*TWO_FLOWS, "--out", "there") == 2

    assert "the fabric 'toy' cannot run here; missing:" in mfs.err
    assert "apt install openvswitch-switch" in mfs.err
    assert not (tmp_path / "there").exists()


def test_something_useful_but_not_needed_may_be_missing(mfs: Mfs) -> None:
    mfs.fabric(ToyFabric(needs=(Requirement(name="CUDA", ok=False, detail="", needed=False),)))

    assert mfs(*TWO_FLOWS) == 0


@pytest.mark.parametrize(
    ("trouble", "code", "told"),
    [
        (JobRefused("90 ranks, at most 64 fit"), 2, "mfs: not on this machine: 90 ranks"),
        (RunFailed("rank 3 died"), 1, "mfs: the run failed: rank 3 died"),
        (KeyboardInterrupt(), 130, "mfs: interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "mfs: the disk is full: x"),
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


def test_a_trace_is_read_before_anything_is_started(mfs: Mfs, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"hash_ids": [1]}\n')

    assert mfs("run", "quickstart", "--fabric", "toy", "--set", "workload.path=t.jsonl") == 2

    assert f"{tmp_path / 't.jsonl'}, line 1: timestamp is missing" in mfs.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "quikstart"), "did you mean 'quickstart'?"),
        (("run", "quickstart", "--policy", "fare"), "--policy fare: policies[0]: there is no policy"),
        (("run", "quickstart", "--seed", "-1"), "--seed -1: seed: -1 is out of range"),
        (("run", "quickstart", "--fabric", "x"), "--fabric x: fabric: 'x' is no fabric here"),
        (("run", "quickstart", "--set", "a.b=1"), "--set a.b=1: unknown key 'a'"),
        (("scenarios", "nowhere.yaml"), "no scenario 'nowhere.yaml'"),
        (("report", "nowhere"), "nowhere"),
    ],
)
def test_a_slip_is_answered_in_one_message_with_code_2(
    mfs: Mfs, arguments: tuple[str, ...], told: str
) -> None:
    assert mfs(*arguments) == 2

    assert mfs.err.startswith("mfs: ")
    assert told in mfs.err
    assert "Traceback" not in mfs.err


def test_an_option_that_does_not_exist_is_refused_with_code_2(mfs: Mfs) -> None:
    assert mfs("run", "quickstart", "--sed", "1") == 2


@pytest.mark.parametrize(
    ("holds", "told"),
    [
        ("sweep.html", "the directory of a sweep; its page is there/sweep.html"),
        ("validate.json", "the directory of a validation; its page is there/report.html"),
    ],
)
def test_a_report_on_another_kind_of_directory_says_where_its_page_is(
    mfs: Mfs, tmp_path: Path, holds: str, told: str
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / holds).touch()

    assert mfs("report", "there") == 2

    assert told in mfs.err


def test_a_report_can_be_written_again_elsewhere(mfs: Mfs, tmp_path: Path) -> None:
    assert mfs(*TWO_FLOWS, "--out", "one") == 0
    assert mfs(*TWO_FLOWS, "--out", "two") == 0

    assert mfs("report", "one", "two", "--out", "both.html") == 0

    assert mfs.out == "both.html\n"
    assert (tmp_path / "both.html").stat().st_size > 1000


def test_scenarios_and_policies_are_listed_with_what_they_are(mfs: Mfs) -> None:
    assert mfs("scenarios") == 0
    assert "quickstart Mixtral-8x7B on 10 servers" in " ".join(mfs.out.split())

    assert mfs("policies") == 0
    assert {"fair", "mfs", "stage"} <= {line.split()[0] for line in mfs.out.splitlines()}


def test_the_doctor_says_what_is_missing_and_what_a_run_takes_instead(
    mfs: Mfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FABRICS, "mininet", lambda: ToyFabric(needs=(OVS,)))

    assert mfs("doctor") == 0
    assert "mininet: cannot run here\n  for Open vSwitch: apt install openvswitch-switch\n" in mfs.out
    assert "toy: can run here" in mfs.out
    assert mfs.out.splitlines()[-1] == "auto, the default: sim"
    assert mfs("doctor", "--fabric", "mininet") == 2
    assert mfs("doctor", "--fabric", "mininett") == 2

    monkeypatch.setitem(FABRICS, "mininet", lambda: ToyFabric())
    assert mfs("doctor", "--fabric", "mininet") == 0
    assert mfs.out.splitlines()[-1] == "auto, the default: mininet"


def test_a_run_is_emulated_where_that_can_be(mfs: Mfs, monkeypatch: pytest.MonkeyPatch) -> None:
    emulated = ToyFabric()
    monkeypatch.setitem(FABRICS, "mininet", lambda: emulated)

    assert mfs("run", "two-flows", "--policy", "fair", "--json") == 0

    assert emulated.ran == [("fair", 1)]
    assert json.loads(mfs.out)["notes"] == []
    assert "cannot run" not in mfs.err


def test_a_run_is_simulated_where_the_emulation_lacks_something(
    mfs: Mfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale is that of the simulated fabric (none), not of the machine, and the results say why."""
    simulated = ToyFabric()
    monkeypatch.setitem(FABRICS, "mininet", lambda: ToyFabric(needs=(ROOT, OVS)))
    monkeypatch.setitem(FABRICS, "sim", lambda: simulated)

    assert mfs("run", "two-flows", "--policy", "fair", "--json", "--out", "there") == 0

    told = (
        "the emulated fabric cannot run here (missing: root, Open vSwitch): simulated;"
        " `mfs doctor` says how to get it"
    )
    summary = json.loads(mfs.out)
    assert simulated.ran == [("fair", 1)]
    assert summary["scale"] == {"time_dilation": 1.0, "bytes_scale": 1.0}
    assert summary["notes"][0] == told
    assert f"mfs: {told}" in mfs.err.splitlines()
    assert "fabric: sim\n" in (tmp_path / "there" / "scenario.yaml").read_text()


def test_the_emulated_fabric_asked_for_by_name_is_not_replaced(
    mfs: Mfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FABRICS, "mininet", lambda: ToyFabric(needs=(OVS,)))

    assert mfs("run", "two-flows", "--fabric", "mininet") == 2
    assert "Open vSwitch: absent" in mfs.err


def test_what_the_fabrics_need_is_looked_up_without_the_packages_of_the_emulation() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'mininet', 'ryu', 'os_ken', 'eventlet')))\n"
        "from testbed.fabrics import choose\n"
        "print(choose().name)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout in ("mininet\n", "sim\n")


@pytest.mark.parametrize(
    ("trouble", "code"), [(RunFailed("rank 3 died"), 1), (KeyboardInterrupt(), 130)], ids=["failed", "ctrl-c"]
)
def test_policies_that_were_through_keep_their_results(
    mfs: Mfs, tmp_path: Path, trouble: BaseException, code: int
) -> None:
    mfs.fabric(ToyFabric(trouble=trouble, in_policy="mfs"))

    ended = mfs(
        "run", "two-flows", "--fabric", "toy", "--policy", "fair", "--policy", "mfs", "--out", "there"
    )

    summary = json.loads((tmp_path / "there" / "summary.json").read_text())
    assert ended == code
    assert [run["policy"] for run in summary["runs"]] == ["fair"]
    assert (summary["complete"], summary["unfinished"]) == (False, ["mfs"])
    assert mfs.err.splitlines()[-1] == "results of fair are in there; mfs did not get to an end"
    assert mfs("report", "there") == 0


def test_a_run_of_all_policies_is_complete(mfs: Mfs) -> None:
    assert mfs(*TWO_FLOWS, "--json") == 0

    summary = json.loads(mfs.out)
    assert (summary["complete"], summary["unfinished"]) == (True, [])


def test_a_full_disk_is_named_by_its_path(mfs: Mfs) -> None:
    """Writing to an open file says only that there is no space."""
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


def test_a_policy_package_that_does_not_compile_is_listed_with_its_error(
    mfs: Mfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slip.py").write_text("def broken(:\n")
    package = tmp_path / "slip-0.1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: slip\nVersion: 0.1\n")
    (package / "entry_points.txt").write_text("[mfs.policies]\nslip = slip:Slip\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert mfs("policies") == 0

    lines = {line.split()[0]: line for line in mfs.out.splitlines()}
    assert "policy 'slip' (slip:Slip) does not load: invalid syntax (slip.py, line 1)" in lines["slip"]
    assert "fair" in lines
    assert mfs("run", "two-flows", "--policy", "slip") == 2
    assert "does not load" in mfs.err


def test_help_needs_none_of_the_heavy_packages() -> None:
    code = (
        "import sys, experiments.cli.app\n"
        "print([m for m in ('torch', 'numpy', 'pyarrow', 'matplotlib', 'pydantic') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


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


def test_a_directory_in_which_another_run_is_at_work_is_refused(mfs: Mfs) -> None:
    """It is still empty then: a run writes at its end."""
    Path("shared").mkdir()
    held = os.open("shared", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        assert mfs("run", "quickstart", "--fabric", "mininet", "--out", "shared") == 2
    finally:
        os.close(held)
    assert "mfs: --out shared: another run is at work there" in mfs.err
    assert Path("shared").is_dir()
