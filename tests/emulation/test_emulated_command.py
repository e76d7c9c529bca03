"""The `mfs` command on the emulated fabric: what a user sees, with and without its requirements."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import testbed

MFS = str(Path(sys.executable).with_name("mfs"))
UNPRIVILEGED = ("unshare", "--user")  # a user namespace without mapped users: uid 65534, no capabilities
PROGRAMS = ("mnexec", "tc", "ethtool", "unshare", "setpriv", "ip", "mount", "nice")

KEYS = {"scenario", "fabric", "seed", "faithful", "scale", "runs"}
RUN_KEYS = {
    "policy",
    "requests",
    "completed",
    "slo_attainment",
    "ttft_s",
    "cct_s",
    "earliness_s",
    "promotions",
    "permit_latency_ms",
    "flows",
}


def _mfs(
    *arguments: str, cwd: Path, wrapper: tuple[str, ...] = (), path: str | None = None
) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | ({} if path is None else {"PATH": path})
    return subprocess.run(
        [*wrapper, MFS, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> "tuple[subprocess.CompletedProcess[str], Path]":
    """`mfs run two-flows`, and the folder where it was given. Its results are there, and modules that end
    any process that imports them."""
    folder = tmp_path_factory.mktemp("ran")
    for name in ("zmq", "queue", "torch"):
        (folder / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    for name in ("testbed", "controller", "workers"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    return _mfs("run", "two-flows", "--policy", "stage", "--json", "--out", "results", cwd=folder), folder


def test_run_json_prints_the_summary_with_the_timing_and_nothing_else(
    ran: "tuple[subprocess.CompletedProcess[str], Path]",
) -> None:
    done, folder = ran
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary.keys() >= KEYS
    assert summary["fabric"] == "mininet"
    assert summary["scale"] == {"time_dilation": 2, "bytes_scale": 0.01}
    (run,) = summary["runs"]
    assert run.keys() >= RUN_KEYS
    assert run["policy"] == "stage"
    finish_s = {flow["id"]: flow["finish_s"] for flow in run["flows"]}
    # At line rate the KV fetch, which goes first, takes 1 s, and both flows take 2 s.
    assert 1.0 <= finish_s["fetch"] <= 1.2
    assert 2.0 <= finish_s["deliver"] <= 2.4
    assert run["permit_latency_ms"]["p50"] > 0
    timing = summary.pop("timing")
    assert json.loads((folder / "results" / "summary.json").read_text()) == summary
    assert json.loads((folder / "results" / "timing.json").read_text()) == timing
    assert "running" in done.stderr


def test_what_lies_in_the_working_directory_is_not_imported(
    ran: "tuple[subprocess.CompletedProcess[str], Path]",
) -> None:
    """A run is root, and Python looks there first for a module that it starts."""
    done, folder = ran
    assert done.returncode == 0, done.stderr
    code = json.loads((folder / "results" / "versions.json").read_text())["code"]["path"]
    assert code == str(Path(testbed.__file__).parents[1])


def test_doctor_is_content_with_this_machine(tmp_path: Path) -> None:
    done = _mfs("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mininet: can run here" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("run", "two-flows", "--fabric", "mininet"), ("doctor", "--fabric", "mininet")],
    ids=" ".join,
)
def test_without_root_it_stops_at_once_and_says_why(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    if subprocess.run([*UNPRIVILEGED, "true"], capture_output=True).returncode != 0:
        pytest.skip("this kernel has no user namespaces, and so no harmless way to be another user")
    tmp_path.chmod(0o777)
    done = _mfs(*arguments, cwd=tmp_path, wrapper=UNPRIVILEGED)
    assert done.returncode == 2
    # Tables wrap their lines, so white space is ignored.
    assert "this is user 65534" in " ".join((done.stdout + done.stderr).split())
    assert "run the same command with sudo" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_without_root_and_without_a_fabric_named_it_is_simulated(tmp_path: Path) -> None:
    if subprocess.run([*UNPRIVILEGED, "true"], capture_output=True).returncode != 0:
        pytest.skip("this kernel has no user namespaces, and so no harmless way to be another user")
    tmp_path.chmod(0o777)
    done = _mfs("run", "two-flows", "--json", cwd=tmp_path, wrapper=UNPRIVILEGED)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["fabric"] == "sim"
    assert summary["notes"][0].startswith("the emulated fabric cannot run here (missing: root")
    assert f"mfs: {summary['notes'][0]}" in done.stderr.splitlines()


@pytest.mark.parametrize(
    "arguments",
    [("run", "two-flows", "--fabric", "mininet"), ("doctor", "--fabric", "mininet")],
    ids=" ".join,
)
def test_without_open_vswitch_it_says_what_to_install(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    for program in PROGRAMS:
        (bin_directory / program).symlink_to(str(shutil.which(program)))
    done = _mfs(*arguments, cwd=tmp_path, path=str(bin_directory))
    assert done.returncode == 2
    assert "for Open vSwitch" in done.stdout or "Open vSwitch: ovs-vswitchd is not" in done.stderr
    assert "apt-get install -y --no-install-recommends openvswitch-switch" in done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()
