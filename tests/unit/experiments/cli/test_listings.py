"""`mfs scenarios` and `mfs policies`."""

from pathlib import Path

import pytest
from toy_fabric import Mfs


def test_scenarios_and_policies_are_listed_with_what_they_are(mfs: Mfs) -> None:
    assert mfs("scenarios") == 0
    assert "quickstart Mixtral-8x7B on 10 servers" in " ".join(mfs.out.split())

    assert mfs("policies") == 0
    assert {"fair", "mfs", "stage"} <= {line.split()[0] for line in mfs.out.splitlines()}


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
