"""`mfs completion`, and what a shell is offered."""

import subprocess
import sys
from pathlib import Path

import pytest
from toy_fabric import Mfs

MFS = Path(sys.executable).with_name("mfs")


def offered(line: str, folder: Path) -> list[str]:
    """What bash offers for the last word of `line`: it runs `mfs` as the script of `mfs completion` does."""
    words = line.split(" ")
    done = subprocess.run(
        [MFS],
        env={
            "_MFS_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(words),
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        cwd=folder,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mfs comp", ["compare", "completion"]),
        ("mfs run quick", ["quickstart"]),
        ("mfs run quickstart --policy edf", ["edf", "edf-all"]),
        ("mfs run quickstart --set workload.lo", ["workload.load="]),
        ("mfs sweep quickstart --over topology.nic_g", ["topology.nic_gbps="]),
        ("mfs run quickstart --fabric s", ["sim"]),
        ("mfs plot --y slo", ["slo_attainment"]),
        ("mfs policies mf", ["mfs"]),
        ("mfs run mine.y", []),
    ],
)
def test_what_a_shell_is_offered(line: str, expected: list[str], tmp_path: Path) -> None:
    assert offered(line, tmp_path) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_mfs(mfs: Mfs, shell: str) -> None:
    assert mfs("completion", shell) == 0
    assert f"_MFS_COMPLETE=complete_{shell}" in mfs.out


def test_the_script_is_valid_bash(mfs: Mfs) -> None:
    assert mfs("completion", "bash") == 0
    script = mfs.out + "\ncomplete -p mfs\n"

    done = subprocess.run(["bash"], input=script, capture_output=True, text=True)

    assert done.stderr == ""
    assert "_mfs_completion" in done.stdout


def test_another_shell_is_refused(mfs: Mfs) -> None:
    assert mfs("completion", "tcsh") == 2
