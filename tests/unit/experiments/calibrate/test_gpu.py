"""How close a GPU gets to its peaks: the profile that follows from measurements, and the command."""

from pathlib import Path

import pytest
import torch
from toy_fabric import Mfs

from experiments.calibrate.gpu import ON_CPU, TimedKernel, measure, open_bench, profile
from experiments.calibrate.layer_kernels import Kernel, layer_kernels, narrowed
from experiments.resolve.jobs import resolve
from experiments.scenario.gpu_profile import read_profile
from experiments.scenario.reading import load_scenario
from testbed.models.gpus import step_s
from testbed.models.known_models import MODELS


def timed(tokens: int, seconds: float, times: int = 1) -> TimedKernel:
    """A product of 2 x tokens x 1e6 FLOPs."""
    kernel = Kernel(label="product", tokens=tokens, inner=1000, columns=1000, times=times)
    return TimedKernel(kernel=kernel, seconds=seconds)


def test_a_known_device_is_held_to_the_peaks_of_its_vendor() -> None:
    """At 1e6 tokens, 2e12 FLOPs in 20 ms and three times 2e12 in 10 ms each: 8e12 in 50 ms are 160e12 of
    the A100's 312e12 FLOP/s. 1529.25 of its 2039 GB/s are three quarters. Only the most tokens count."""
    measured = [timed(1000, 1.0), timed(10**6, 0.020), timed(10**6, 0.010, times=3)]
    gpu = profile("NVIDIA A100-SXM4-80GB", measured, 200e12, 1529.25e9, 5e-6, "today")
    assert (gpu.name, gpu.peak_flops, gpu.memory_bytes_per_s) == ("a100", 312e12, 2039e9)
    assert gpu.efficiency == pytest.approx(160 / 312)
    assert gpu.memory_efficiency == pytest.approx(0.75)
    assert (gpu.launch_s, gpu.measured) == (5e-6, "today")


def test_an_unknown_device_is_held_to_the_fastest_product_and_the_copy() -> None:
    """100e12 and 200e12 FLOP/s: 6e12 FLOPs in 40 ms are 150e12 FLOP/s, three quarters of the faster one."""
    measured = [timed(10**6, 0.020), timed(10**6, 0.010, times=2)]
    gpu = profile("NVIDIA H100 PCIe", measured, 180e12, 1.5e12, 0.0, "")
    assert (gpu.name, gpu.peak_flops, gpu.memory_bytes_per_s) == ("NVIDIA H100 PCIe", 200e12, 1.5e12)
    assert gpu.efficiency == pytest.approx(0.75)
    assert gpu.memory_efficiency == 1


def test_this_processor_is_measured_and_the_profile_serves_a_scenario(mfs: Mfs, tmp_path: Path) -> None:
    code = mfs("calibrate", "gpu", "--device", "cpu", "--model", "qwen3-30b-a3b", "--out", "mine.yaml")

    assert code == 0, mfs.err
    assert mfs.out.splitlines()[0].startswith("a layer of qwen3-30b-a3b at 1/8 of its widths on ")
    assert mfs.out.splitlines()[-1] == "profile: mine.yaml"
    text = (tmp_path / "mine.yaml").read_text()
    for tokens in ON_CPU.tokens:
        assert f"# {tokens:>6}    expert-up" in text
    gpu = read_profile(tmp_path / "mine.yaml")
    assert 0 < gpu.efficiency <= 1
    assert 0 < gpu.launch_s < 0.1
    assert f"torch {torch.__version__}" in gpu.measured
    (tmp_path / "s.yaml").write_text("gpu: mine.yaml\nworkload: {requests: 1}\n")
    assert resolve(load_scenario(str(tmp_path / "s.yaml"))).jobs[0].gpu == gpu


@pytest.mark.parametrize("name", ["deepseek-v3", "llama-3-8b"])
def test_other_attention_is_measured_too(name: str) -> None:
    """MLA has keys wider than its values; a dense model has no experts."""
    bench = open_bench("cpu")
    small = narrowed(MODELS[name], 16)
    started: list[str] = []
    found = measure(bench, small, on_start=started.append)
    assert [item.kernel for item in found.timed] == [
        kernel for tokens in ON_CPU.tokens for kernel in layer_kernels(narrowed(small, 8), tokens)
    ]
    assert len(started) == len(found.timed) + 1
    assert all(item.seconds > 0 for item in found.timed)
    assert step_s(found.gpu, flops=1, read_bytes=1) > found.gpu.launch_s > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_command_says_so(mfs: Mfs, tmp_path: Path) -> None:
    assert mfs("calibrate", "gpu") == 2
    assert "there is no CUDA device here; --device cpu measures this machine's processor" in mfs.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_is_measured(mfs: Mfs, tmp_path: Path) -> None:
    assert mfs("calibrate", "gpu", "--device", "cuda", "--out", "mine.yaml") == 0, mfs.err
    gpu = read_profile(tmp_path / "mine.yaml")
    assert 0.1 < gpu.efficiency <= 1
    assert 0.3 < gpu.memory_efficiency <= 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--out", "x.json", "gpu"), "--out: write options after `calibrate gpu`"),
        (("gpu", "--out", "none/x.yaml"), "--out none/x.yaml: there is no directory none"),
        (("gpu", "--model", "mixtral"), "'mixtral' is not a known model; did you mean 'mixtral-8x7b'?"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_timed(
    mfs: Mfs, words: tuple[str, ...], told: str
) -> None:
    assert mfs("calibrate", *words) == 2
    assert told in mfs.err
