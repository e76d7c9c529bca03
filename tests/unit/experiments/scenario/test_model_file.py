"""A scenario's model from a `config.json`."""

from pathlib import Path

import pytest

from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.scenario.model_file import model_files, model_named, read_model
from experiments.scenario.reading import load_scenario, override
from testbed.models.known_models import MODELS
from testbed.models.sizes import kv_bytes_per_token


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
        ("c.json", '{"a": 1, "a": 2}', "model: {folder}/c.json: the key 'a' is there twice"),
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


def test_how_a_model_was_quantised_may_be_in_a_file_beside_it(llama: Path) -> None:
    """32 layers with 8 KV heads of 128: 2 x 8 x 128 x 32 = 65_536 elements of KV."""
    beside = llama / "hf_quant_config.json"
    beside.write_text('{"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}')
    shape = read_model(llama)
    assert (kv_bytes_per_token(shape), shape.weight_bytes) == (65_536, 0.5)
    assert model_files(llama) == [llama / "config.json", beside]


def test_the_file_beside_a_named_one_has_its_name(llama: Path) -> None:
    named = llama / "nv--llama_config.json"
    (llama / "config.json").rename(named)
    assert read_model(named).weight_bytes == 2.0
    (llama / "nv--llama_hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    assert read_model(named).weight_bytes == 1.0


def test_a_quantisation_that_cannot_be_read_is_refused(llama: Path) -> None:
    (llama / "hf_quant_config.json").write_text('{"producer": {}}')
    with pytest.raises(UserError, match="a mapping under the key quantization is needed"):
        read_model(llama)


def test_what_a_model_leaves_out_is_a_note_of_the_run(llama: Path, tmp_path: Path) -> None:
    config = llama / "config.json"
    config.write_text(config.read_text().replace("{", '{"num_nextn_predict_layers": 1, ', 1))
    (tmp_path / "s.yaml").write_text("model: llama-3-8b/config.json\nworkload: {requests: 1}\n")
    [note] = [
        note for note in resolve(load_scenario(str(tmp_path / "s.yaml"))).notes if note.startswith("model ")
    ]
    assert note.startswith("model llama-3-8b: num_nextn_predict_layers: layers that predict further tokens")
