"""What a rank chooses: its device, its compute, the bytes of its share of a collective, what is a failure."""

import time
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from controller.pulse import Pulse
from workers.clock import Clock
from workers.collectives import CollectiveGroup
from workers.compute import Calibrated, KernelCompute, MatmulCompute, TimedCompute, make_compute
from workers.device_choice import choose_device
from workers.heart import Heart
from workers.layer_sizes import LayerSizes
from workers.options import ComputeMode, Device
from workers.payload import Payloads
from workers.plan import Collective, CollectiveKind
from workers.protocol import RankConfig, RankTrouble, Records, decode_from_rank
from workers.rank import Rank, _peer_bytes
from workers.recorder import Recorder
from workers.streams import Stream
from workers.wire import Outbox

CPU = torch.device("cpu")


def machine_with(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


def test_the_cpu_can_be_asked_for_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(monkeypatch, 8)
    assert choose_device(Device.CPU, 0, 8) == (CPU, False)


def test_auto_is_the_cpu_on_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(monkeypatch, 0)
    assert choose_device(Device.AUTO, 0, 8) == (CPU, False)


def test_cuda_on_a_machine_without_is_an_error_that_names_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(monkeypatch, 0)
    with pytest.raises(RuntimeError, match=r"workers\.device is cuda, but this machine has no CUDA device"):
        choose_device(Device.CUDA, 0, 8)


@pytest.mark.parametrize("wanted", [Device.AUTO, Device.CUDA])
def test_with_a_gpu_each_collectives_use_nccl(monkeypatch: pytest.MonkeyPatch, wanted: Device) -> None:
    machine_with(monkeypatch, 4)
    assert choose_device(wanted, 3, 4) == (torch.device("cuda", 3), True)


def test_ranks_that_share_gpus_go_through_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(monkeypatch, 2)
    assert choose_device(Device.AUTO, 3, 4) == (torch.device("cuda", 1), False)


def test_timed_compute_takes_the_modelled_time() -> None:
    clock = Clock(3.0)
    before = time.perf_counter()
    TimedCompute(clock).run(0.01, "mlp")
    assert time.perf_counter() - before >= 0.03
    assert len(clock.late_ms) == 1


LAYER = LayerSizes(hidden=32, q_heads=4, kv_heads=2, head_dim=8, v_dim=8, ffn=48, gated=True, context=20)


def test_kernels_are_run_the_more_often_the_longer_they_are_to_last() -> None:
    """Runs are counted, not timed: the machine may be busy with something else."""
    ran = 0

    def kernels() -> None:
        nonlocal ran
        ran += 1

    calibrated = Calibrated(Stream(CPU), kernels)
    for wall_s, runs in (
        (10 * calibrated.seconds_per_run, 10),
        (40 * calibrated.seconds_per_run, 40),
        (0, 1),
    ):
        ran = 0
        assert calibrated.run(wall_s) > 0
        assert ran == runs


def test_a_step_runs_the_kernels_of_its_kind_for_the_dilated_time() -> None:
    compute = KernelCompute(CPU, 3.0, LAYER)
    asked: list[tuple[str, float]] = []
    compute._attention.run = lambda wall_s: asked.append(("attention", wall_s)) or 0.5  # type: ignore
    compute._feed_forward.run = lambda wall_s: asked.append(("feed-forward", wall_s)) or 0.5  # type: ignore
    for label in ("attention", "scores", "ring", "mlp", "experts"):
        assert compute.run(2.0, label) == 0.5
    assert asked == [("attention", 6.0)] * 3 + [("feed-forward", 6.0)] * 2


def test_compute_is_of_the_kind_that_is_asked_for() -> None:
    def made(mode: ComputeMode) -> object:
        return make_compute(mode, Clock(1.0), CPU, 1.0, LAYER)

    assert isinstance(made(ComputeMode.TIMED), TimedCompute)
    assert isinstance(made(ComputeMode.MATMUL), MatmulCompute)
    assert isinstance(made(ComputeMode.KERNELS), KernelCompute)
    with pytest.raises(ValueError, match="need its sizes"):
        make_compute(ComputeMode.KERNELS, Clock(1.0), CPU, 1.0, None)


def test_a_compute_span_begins_when_the_device_began() -> None:
    """0.2 s of wall time are 0.1 s of model time: the device was busy for the last tenth of a second."""
    rank = object.__new__(Rank)
    rank._clock = Clock(2.0)
    rank._clock.start(rank._clock.wall_ns())

    class Device:
        def run(self, seconds: float, label: str) -> float:
            time.sleep(0.4)
            return 0.2

    rank._compute = Device()  # type: ignore[assignment]
    begun_ns = rank._compute_for(1.0, "mlp", None)
    now_ns = rank._clock.now_ns()
    assert 0.1e9 <= begun_ns <= now_ns - 0.1e9


def test_real_compute_takes_the_modelled_time_on_a_server_whose_clock_is_ahead() -> None:
    """By 50 minutes. The rank must neither sleep for so long nor think that it is late."""
    rank = object.__new__(Rank)
    rank._clock = Clock(1.0, offset_ns=3000 * 10**9)
    done: list[str] = []
    before = time.perf_counter()
    rank._compute_for(0.02, "mlp", lambda: done.append("layer"))
    assert done == ["layer"]
    assert 0.02 <= time.perf_counter() - before < 10
    assert max(rank._clock.late_ms) < 10_000


def second_of_three() -> CollectiveGroup:
    """Rank 7's side of a group of ranks 4, 7 and 9. It sends nothing in these tests."""
    return CollectiveGroup("ep", None, (4, 7, 9), 7, Payloads(1), CPU, staged=True)


def step(kind: CollectiveKind, *sizes: tuple[int, ...]) -> Collective:
    return Collective(id="c", group="ep", kind=kind, sizes=sizes, label="")


def test_in_an_all_to_all_a_rank_sends_its_row_without_its_own_part() -> None:
    sizes = ((1, 2, 3), (40, 50, 60), (7, 8, 9))
    assert _peer_bytes(step(CollectiveKind.ALL_TO_ALL, *sizes), second_of_three()) == {4: 40, 9: 60}


def test_in_an_all_reduce_a_rank_sends_to_the_next_in_the_ring() -> None:
    """Ring all-reduce of 900 bytes among 3: every rank sends 2 * 2/3 of them, 1200."""
    assert _peer_bytes(step(CollectiveKind.ALL_REDUCE, (900,)), second_of_three()) == {9: 1200}


def test_a_rank_that_cannot_send_its_records_says_so() -> None:
    """Only after the records are sent, closed connections are no failure any more."""
    sent: list[bytes] = []
    rank = object.__new__(Rank)
    rank._config = cast(RankConfig, SimpleNamespace(rank=3))
    rank._clock = cast(Clock, SimpleNamespace(late_ms=[], wall_ns=time.monotonic_ns))
    rank._coordinator = cast(Outbox, SimpleNamespace(send=sent.append))
    rank._recorder = cast(Recorder, SimpleNamespace())
    rank._heart = cast(Heart, SimpleNamespace(pulse=Pulse(time.monotonic_ns())))
    rank._model = None
    rank._finished = False
    with pytest.raises(AttributeError) as raised:
        rank._finish()

    rank.failed(raised.value)
    assert isinstance(decode_from_rank(sent[0]), RankTrouble)

    rank._recorder = Recorder()
    rank._finish()
    rank.failed(ConnectionError("a peer has left"))
    assert [type(decode_from_rank(message)) for message in sent] == [RankTrouble, Records]
