"""A scenario's model from a `config.json`, and `mfs models`."""

import json
import re
from pathlib import Path

import pytest
from toy_fabric import Mfs

from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.scenario.model_file import model_named
from experiments.scenario.reading import load_scenario, override
from testbed.models.shapes import MODELS

LLAMA_3_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
}


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    folder = tmp_path / "llama-3-8b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_3_8B))
    return folder


@pytest.mark.parametrize("name", ["llama-3-8b/config.json", "./llama-3-8b", "llama-3-8b/"])
def test_a_model_is_a_file_relative_to_the_scenario(
    llama: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.yaml").write_text(f"model: {name}\nworkload: {{requests: 1}}\n")
    monkeypatch.chdir("/")
    scenario = load_scenario(str(tmp_path / "s.yaml"))
    assert Path(scenario.model) in (llama, llama / "config.json")
    assert resolve(scenario).jobs[0].model == MODELS["llama-3-8b"]


def test_from_the_command_line_it_is_relative_to_the_working_directory(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(llama)
    scenario = load_scenario("quickstart", [override("model=config.json")])
    assert scenario.model == str(llama / "config.json")


def test_a_name_known_here_goes_before_a_directory_called_the_same(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama.rename(tmp_path / "dbrx")
    monkeypatch.chdir(tmp_path)
    assert load_scenario("quickstart", [override("model=dbrx")]).model == "dbrx"
    (tmp_path / "dbrx").rename(tmp_path / "mine")
    assert load_scenario("quickstart", [override("model=mine")]).model == str(tmp_path / "mine")
    assert model_named(str(tmp_path / "mine")).name == "mine"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none.json", None, "m.yaml, line 2: model: {folder}/none.json: no such file"),
        ("./", None, "model: {folder}: there is no config.json in it"),
        ("c.json", "{\n  no\n}", "model: {folder}/c.json, line 2: not JSON"),
        ("c.json", "[]", "model: {folder}/c.json: no model: a set of keys and values is needed"),
        ("c.json", '{"num_hidden_layers": 2}', "model: {folder}/c.json: hidden_size: missing"),
        ("mixtral", None, "model: 'mixtral' is no model here; did you mean 'mixtral-8x7b'?"),
    ],
)
def test_a_file_that_is_no_model_is_named_with_the_key_that_leads_to_it(
    tmp_path: Path, name: str, content: str | None, told: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    (tmp_path / "m.yaml").write_text(f"seed: 1\nmodel: {name}\n")
    with pytest.raises(UserError) as error:
        load_scenario(str(tmp_path / "m.yaml"))
    assert told.format(folder=tmp_path) in str(error.value)


def cells(line: str) -> list[str]:
    """What stands in a line, two spaces or more apart."""
    return re.split(r"\s{2,}", line.strip())


def test_the_command_lists_every_model(mfs: Mfs) -> None:
    assert mfs("models") == 0
    rows = {line.split()[0]: cells(line)[1:] for line in mfs.out.splitlines()[2:]}
    assert list(rows) == list(MODELS)
    assert rows["deepseek-v3"] == ["3 + 58", "8 of 256", "669.2", "35.7", "70272", "14336", "114688"]
    assert rows["llama-3-8b"] == ["32", "-", "7.0", "7.0", "131072", "8192", "0"]


def test_the_page_shows_what_the_command_prints(mfs: Mfs) -> None:
    page = (Path(__file__).parents[4] / "docs" / "models.md").read_text(encoding="utf-8")
    assert mfs("models") == 0
    assert "\n".join(line.rstrip() for line in mfs.out.splitlines()) in page


def test_the_command_shows_what_follows_from_a_file(mfs: Mfs, llama: Path) -> None:
    assert mfs("models", str(llama)) == 0
    rows = dict(cells(line) for line in mfs.out.splitlines())
    assert rows["model"] == "llama-3-8b"
    assert rows["layers"] == "32 dense"
    assert rows["KV of a token, B"] == "131,072"
    # 4 x 32 x 128 x (10_000 x 10_001 / 2)
    assert rows["scores of a prompt of 10,000 tokens, FLOPs"] == "819,281,920,000"
    assert "dispatch of a token, B" not in rows


def test_the_command_prints_a_shape_as_json(mfs: Mfs, llama: Path) -> None:
    assert mfs("models", str(llama / "config.json"), "--json") == 0
    shape = json.loads(mfs.out)
    assert (shape["layers"], shape["kv_heads"], shape["window"]) == (32, 8, None)
    assert mfs("models", "--json") == 0
    assert [one["name"] for one in json.loads(mfs.out)] == list(MODELS)
