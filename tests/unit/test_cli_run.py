"""The `mfs` command: what it prints where, and how it ends.

Runs use a toy fabric that sends every flow of a micro workload alone, at the NIC's rate.
"""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.flow import Level
from experiments import cli
from testbed.fabric import JobRefused, Progress, Requirement, RunFailed
from testbed.fabrics import FABRICS
from testbed.job import Job, MicroFlow
from testbed.record import Check, Fidelity, FlowRow, RunRecord

OVS = Requirement(name="Open vSwitch", ok=False, detail="absent", fix="apt install openvswitch-switch")


class ToyFabric:
    name = "toy"

    def __init__(self, needs: tuple[Requirement, ...] = (), trouble: BaseException | None = None) -> None:
        self._needs = needs
        self._trouble = trouble

    def requirements(self) -> list[Requirement]:
        return list(self._needs)

    def run(self, job: Job, progress: Callable[[Progress], None]) -> RunRecord:
        progress(Progress(phase="sending", done=0, total=len(job.flows)))
        os.write(1, b"noise of some tool\n")
        if self._trouble is not None:
            raise self._trouble
        flows = tuple(_sent_alone(flow, job) for flow in job.flows)
        check = Check(name="rate", value=1.0, bound=">= 0.93", unit="", ok=True, advice="")
        return RunRecord(
            policy=job.policy,
            fabric=self.name,
            requests=(),
            flows=flows,
            decisions=(),
            spans=(),
            links=(),
            progress=(),
            permit_latency_ms=(0.5,),
            fidelity=Fidelity(faithful=True, checks=(check,)),
            facts={},
            queues={},
            duration_ns=max(flow.finish_ns for flow in flows),
            wall_s=0.1,
        )


def _sent_alone(flow: MicroFlow, job: Job) -> FlowRow:
    transfer = flow.transfer
    src, dst = job.placement.server_of(transfer.src), job.placement.server_of(transfer.dst)
    path = job.topology.paths(src, dst)[0]
    took_ns = transfer.size_bytes * 8 * 10**9 // job.topology.link(path[0]).bps
    return FlowRow(
        id=transfer.id,
        stage=transfer.stage,
        src=transfer.src,
        dst=transfer.dst,
        src_server=src,
        dst_server=dst,
        size_bytes=transfer.size_bytes,
        batch=None,
        request=None,
        layer=None,
        coflow=None,
        deadline_ns=transfer.deadline_ns,
        submit_ns=flow.start_ns,
        permit_ns=flow.start_ns,
        lane_wait_ns=0,
        finish_ns=flow.start_ns + took_ns,
        level_first=Level.P1,
        level_last=Level.P1,
        promotions=0,
        path=path,
        verified=None,
    )


class Mfs:
    """Runs `mfs` in this process; keeps what it wrote."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self._monkeypatch.setattr(sys, "argv", ["mfs", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        self.out, self.err = self._capfd.readouterr()
        return int(ended.value.code or 0)

    def fabric(self, fabric: ToyFabric) -> None:
        self._monkeypatch.setitem(FABRICS, "toy", lambda: fabric)


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


def test_a_report_can_be_written_again_elsewhere(mfs: Mfs, tmp_path: Path) -> None:
    assert mfs(*TWO_FLOWS, "--out", "one") == 0
    assert mfs(*TWO_FLOWS, "--out", "two") == 0

    assert mfs("report", "one", "two", "--out", "both.html") == 0

    assert mfs.out == "both.html\n"
    assert (tmp_path / "both.html").stat().st_size > 1000


def test_scenarios_and_policies_are_listed_with_what_they_are(mfs: Mfs) -> None:
    assert mfs("scenarios") == 0
    assert "quickstart  Mixtral-8x7B on 10 servers" in mfs.out

    assert mfs("policies") == 0
    assert {"fair", "mfs", "stage"} <= {line.split()[0] for line in mfs.out.splitlines()}


def test_the_doctor_answers_for_the_default_fabric(mfs: Mfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FABRICS, "mininet", lambda: ToyFabric(needs=(OVS,)))

    assert mfs("doctor") == 2
    assert "mininet: cannot run here\n  for Open vSwitch: apt install openvswitch-switch\n" in mfs.out
    assert "toy: can run here" in mfs.out

    monkeypatch.setitem(FABRICS, "mininet", lambda: ToyFabric())
    assert mfs("doctor") == 0


def test_help_needs_none_of_the_heavy_packages() -> None:
    code = (
        "import sys, experiments.cli\n"
        "print([m for m in ('torch', 'numpy', 'pyarrow', 'matplotlib', 'pydantic') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        [sys.executable, "-c", "from experiments.cli import main; main()", "scenarios", "quickstart"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (0, "")
