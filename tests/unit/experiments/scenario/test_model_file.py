"""A scenario's model from a `config.json`."""

from pathlib import Path

import pytest

from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.scenario.model_file import model_named
from experiments.scenario.reading import load_scenario, override
from testbed.models.known_models import MODELS


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
        ("c.json", "[]", "model: {folder}/c.json: not a model: a mapping of keys to values is needed"),
        ("c.json", '{"num_hidden_layers": 2}', "model: {folder}/c.json: hidden_size: missing"),
        ("mixtral", None, "model: 'mixtral' is not a known model; did you mean 'mixtral-8x7b'?"),
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
