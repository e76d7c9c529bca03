"""The code and the files that made a result: their digests change when they do, and only then."""

import importlib.metadata
import subprocess
from pathlib import Path

import pytest

from experiments.results.code import _plugins, checkout_state, code_version, file_digests, source_digest
from experiments.scenario.files import files_of
from experiments.scenario.reading import load_scenario, override


def tree(root: Path) -> Path:
    files = {
        "controller/a.py": "A = 1\n",
        "controller/core/a.hpp": "",
        "experiments/scenarios/s.yaml": "name: s\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


def test_the_source_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    one, other = tree(tmp_path / "one"), tree(tmp_path / "other")
    assert source_digest(one) == source_digest(other)
    (one / "notes.py").write_text("not ours")
    (one / "controller" / "a.pyc").write_bytes(b"not source")
    assert source_digest(one) == source_digest(other)
    (other / "controller" / "a.py").rename(other / "controller" / "b.py")
    assert source_digest(one) != source_digest(other)


@pytest.mark.parametrize("name", ["controller/a.py", "controller/core/a.hpp", "experiments/scenarios/s.yaml"])
def test_any_change_of_a_source_file_changes_it(tmp_path: Path, name: str) -> None:
    before = source_digest(tree(tmp_path))
    (tmp_path / name).write_text("changed: 1\n")
    assert source_digest(tmp_path) != before


def test_a_checkout_is_told_with_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    assert checkout_state(tree(tmp_path)) == (None, False)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    commit, changed = checkout_state(tmp_path)
    assert commit is not None
    assert (len(commit), changed) == (40, False)
    (tmp_path / "README").write_text("not code")
    assert checkout_state(tmp_path) == (commit, False)
    (tmp_path / "controller" / "new.py").write_text("B = 2\n")
    assert checkout_state(tmp_path) == (commit, True)


def test_the_version_in_words() -> None:
    version = code_version()
    assert len(version.source) == 64
    assert str(version).startswith("commit " if version.commit else "source ")
    assert str(version).endswith(", changed") == version.changed


def test_a_scenario_names_the_files_it_reads(tmp_path: Path) -> None:
    assert files_of(load_scenario("quickstart")) == []
    trace = tmp_path / "t.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00,5,5\n")
    profile = tmp_path / "g.yaml"
    profile.write_text("name: g\npeak_flops: 1e12\nmemory_bytes_per_s: 1e12\nefficiency: 0.5\n")
    texts = [f"workload.path={trace}", f"gpu={profile}"]
    files = files_of(load_scenario("quickstart", [override(text) for text in texts]))
    assert files == [trace, profile]
    before = file_digests(files)
    profile.write_text(profile.read_text().replace("0.5", "0.6"))
    after = file_digests(files)
    assert {path for path in before if before[path] != after[path]} == {str(profile)}


@pytest.mark.parametrize("name", ["llama-3-8b", "llama-3-8b/config.json"])
def test_a_model_in_a_directory_is_known_by_its_file(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    files = files_of(load_scenario("quickstart", [override(f"model=./{name}")]))
    assert files == [llama / "config.json"]
    assert file_digests(files)


@pytest.mark.parametrize("changed", ["mine/policy.py", "mine/parts/order.py"])
def test_a_plug_in_is_known_by_all_files_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    (tmp_path / "mine" / "parts").mkdir(parents=True)
    for name in ("mine/__init__.py", "mine/policy.py", "mine/parts/order.py"):
        (tmp_path / name).write_text("")
    point = importlib.metadata.EntryPoint("own", "mine.policy:Own", "mfs.policies")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [point] if group == "mfs.policies" else []
    )
    before = _plugins()
    assert list(before) == ["mfs.policies: own"]
    (tmp_path / changed).write_text("A = 1\n")
    assert _plugins() != before
