"""`mfs scenarios` and `mfs policies`."""

import json
from pathlib import Path

import pytest
from toy_fabric import Mfs

from controller.policies import policy_names
from experiments.scenario.reading import builtin_scenarios


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

    told = " ".join(mfs.out.split())  # a terminal breaks the line
    assert "slip policy 'slip' (slip:Slip) does not load: invalid syntax (slip.py, line 1)" in told
    assert "fair" in {line.split()[0] for line in mfs.out.splitlines()}
    assert mfs("run", "two-flows", "--policy", "slip") == 2
    assert "does not load" in mfs.err


def test_a_policy_is_shown_with_what_its_options_take(mfs: Mfs) -> None:
    assert mfs("policies", "pias") == 0

    lines = mfs.out.splitlines()
    assert lines[0].startswith("pias: ")
    at = lines.index("  factor=4.0")
    assert lines[at + 2] == "      takes a number, above 1"
    assert lines[-1].endswith("docs/policies/pias.md")


def test_request_control_is_shown_like_a_policy(mfs: Mfs) -> None:
    for name in ("requests", "+requests", "+ requests"):
        assert mfs("policies", name) == 0
        assert "  drop_budget=0.3" in mfs.out.splitlines()
        assert mfs.out.splitlines()[-1].endswith("docs/concepts/request-control.md")


def test_a_policy_that_does_not_exist_is_refused_with_the_nearest(mfs: Mfs) -> None:
    assert mfs("policies", "edff") == 2
    assert "did you mean 'edf'" in mfs.err


def test_every_listing_is_json_too(mfs: Mfs) -> None:
    assert mfs("policies", "--json") == 0
    by_name = {one["name"]: one for one in json.loads(mfs.out)}
    assert set(by_name) == {*policy_names(), "+requests"}
    (levels,) = [one for one in by_name["sjf"]["options"] if one["name"] == "levels"]
    assert (levels["least"], levels["above"], levels["most"], levels["default"]) == (2, None, 6, "6")
    assert mfs("policies", "sjf", "--json") == 0
    assert json.loads(mfs.out) == by_name["sjf"]

    assert mfs("scenarios", "--json") == 0
    assert "quickstart" in [one["name"] for one in json.loads(mfs.out)]
    assert mfs("scenarios", "quickstart", "--json") == 0
    assert json.loads(mfs.out)["workload"]["requests"] == 48

    assert mfs("doctor", "--json") == 0
    assert json.loads(mfs.out)["fabrics"]["toy"] == {"works": True, "needs": []}


def test_a_short_option_asks_for_help(mfs: Mfs) -> None:
    assert mfs("workload", "describe", "-h") == 0
    assert "--json" in mfs.out


def test_the_doctor_names_a_package_of_the_user_that_hides_one_of_ours(mfs: Mfs, tmp_path: Path) -> None:
    assert mfs("doctor") == 0
    assert "hides" not in mfs.out

    (tmp_path / "workers.py").touch()
    (tmp_path / "testbed").mkdir()
    (tmp_path / "testbed" / "__init__.py").touch()

    assert mfs("doctor") == 0
    said = [line for line in mfs.out.splitlines() if "hides" in line]
    assert said == [
        f"in this folder: {tmp_path / name} hides our package {room!r} from Python there: rename it"
        for name, room in (("workers.py", "workers"), ("testbed", "testbed"))
    ]


def test_a_list_is_broken_between_words_where_the_terminal_ends(
    mfs: Mfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    for command in ("scenarios", "policies"):
        assert mfs(command) == 0
        assert max(map(len, mfs.out.splitlines())) <= 50
    assert "fair       every flow on one level; the fabric\n           shares each link fairly\n" in mfs.out


def test_a_list_in_a_file_has_a_line_for_each_entry(mfs: Mfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert mfs("scenarios") == 0
    assert len(mfs.out.splitlines()) == len(builtin_scenarios())
