"""The model and GPU files of a scenario are read once, when the scenario is checked."""

from pathlib import Path
from typing import BinaryIO

import pytest
from config_files import write_config

from experiments import named_file
from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override

PROFILE = "name: mine\npeak_flops: 1e15\nmemory_bytes_per_s: 1e12\nefficiency: 0.5\n"


def files(folder: Path, *, layers: int = 32) -> list[str]:
    """Write a model and a profile in `folder`, and return the settings that name them."""
    write_config(folder / "model.json", num_hidden_layers=layers)
    (folder / "gpu.yaml").write_text(PROFILE)
    return [f"model={folder / 'model.json'}", f"gpu={folder / 'gpu.yaml'}", "workload.requests=1"]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened, in order."""
    names: list[str] = []
    opened = named_file.open_ordinary

    def counted(path: Path, source: str) -> BinaryIO:
        names.append(path.name)
        return opened(path, source)

    monkeypatch.setattr(named_file, "open_ordinary", counted)
    return names


def test_from_the_check_to_the_job_each_file_is_read_once(tmp_path: Path, read: list[str]) -> None:
    scenario = load_scenario("quickstart", [override(text) for text in files(tmp_path)])
    assert (read.count("model.json"), read.count("gpu.yaml")) == (1, 1)

    job = resolve(scenario).jobs[0]

    assert (job.model.layers, job.gpu.name) == (32, "mine")
    assert (read.count("model.json"), read.count("gpu.yaml")) == (1, 1)


def test_a_file_that_has_changed_is_read_anew_by_the_next_check(tmp_path: Path) -> None:
    for layers in (32, 16):
        settings = files(tmp_path, layers=layers)
        job = resolve(load_scenario("quickstart", [override(text) for text in settings])).jobs[0]
        assert job.model.layers == layers


def test_a_file_that_has_gone_is_refused_by_the_next_check(tmp_path: Path) -> None:
    settings = [override(text) for text in files(tmp_path)]
    load_scenario("quickstart", settings)
    (tmp_path / "model.json").unlink()

    with pytest.raises(UserError, match=r"model: .*model\.json: no such file"):
        load_scenario("quickstart", settings)
