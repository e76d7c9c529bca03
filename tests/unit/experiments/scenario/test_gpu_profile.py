"""A scenario's GPU from a profile."""

from pathlib import Path

import pytest

from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\npeak_flops: 1e12\nefficiency: 0.5\n", "gpu.yaml: 'memory_bytes_per_s' is missing"),
        ("peak_flop: 1e12\n", "gpu.yaml, line 1: unknown key 'peak_flop'; did you mean 'peak_flops'?"),
        (
            "name: x\nefficiency: 1.5\n",
            "gpu.yaml, line 2: efficiency: input should be less than or equal to 1",
        ),
        ("name: x\npeak_flops: much\n", "gpu.yaml, line 2: peak_flops: input should be a valid number"),
        ("- 1\n", "not a GPU profile with the keys name, peak_flops"),
        ("name: [\n", "not YAML"),
    ],
)
def test_a_profile_that_cannot_be_used_is_blamed_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "gpu.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_scenario("quickstart", [override(f"gpu={tmp_path / 'gpu.yaml'}")])
    assert str(error.value).startswith(f"--set gpu={tmp_path / 'gpu.yaml'}: gpu: {tmp_path}")
    assert told in str(error.value)


def test_a_profile_may_be_written_by_hand(tmp_path: Path) -> None:
    keys = "name: b200\npeak_flops: 2.25e15\nmemory_bytes_per_s: 8e12\nefficiency: 0.4\n"
    (tmp_path / "b200.yaml").write_text(keys)
    (tmp_path / "s.yaml").write_text("gpu: b200.yaml\nworkload: {requests: 1}\n")
    gpu = resolve(load_scenario(str(tmp_path / "s.yaml"))).jobs[0].gpu
    assert (gpu.name, gpu.peak_flops, gpu.efficiency) == ("b200", 2.25e15, 0.4)
    assert (gpu.memory_efficiency, gpu.launch_s, gpu.measured) == (1.0, 0.0, "")
