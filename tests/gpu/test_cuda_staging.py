"""The data path of a GPU: KV in pages, pinned buffers, and copies beside compute, as its events tell.

`pytest tests/gpu -s` prints where the trace of the overlap is. chrome://tracing and ui.perfetto.dev draw it.
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import real_world as real
import torch
from worker_groups import connected

from workers.buffers import Buffers
from workers.compute import KernelCompute
from workers.lanes import Header, ReceiveLane, SendLane
from workers.layer_kernels import LayerKernels
from workers.layer_sizes import LayerSizes
from workers.pages import PagePool
from workers.payload import BLOCK_BYTES, Payloads
from workers.seeded_pages import SeededPages
from workers.staging import DeviceStaging, Staging, staging_for
from workers.streams import Mark, Stream, host_memory, numbers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
MIB = 2**20
PAGE = 64 * 1024
WAIT_S = 60.0
Trace = list[tuple[str, Mark]]

LAYER = LayerSizes(
    hidden=4096, q_heads=32, kv_heads=8, head_dim=128, v_dim=128, ffn=14336, gated=True, context=4096
)
"""As in Llama 3 8B."""


class Lane:
    """A lane within this process, from one staging to another."""

    def __init__(self, sender: Staging, receiver: Staging, chunk_bytes: int, verify: float) -> None:
        sending, receiving = connected(2, device=CUDA)
        self.kept: dict[str, torch.Tensor] = {}
        self.errors: queue.Queue[BaseException] = queue.Queue()
        self._arrived: queue.Queue[tuple[str, bool | None]] = queue.Queue()
        ReceiveLane(
            "lane",
            receiving,
            receiver,
            chunk_bytes,
            verify,
            progressed=lambda *_: None,
            arrived=lambda header, verified: self._arrived.put((header.flow, verified)),
            failed=self.errors.put,
            keep=self._keep,
        )
        self._lane = SendLane("lane", sending, sender, chunk_bytes, self.errors.put)

    def _keep(self, flow: str, content: torch.Tensor) -> None:
        self.kept[flow] = content.clone()

    def send(self, name: str, size: int, load: Callable[[], torch.Tensor] | None = None) -> None:
        self._lane.send(Header(flow=name, size_bytes=size, wire_bytes=size), load)

    def arrived(self) -> tuple[str, bool | None]:
        try:
            return self._arrived.get(timeout=WAIT_S)
        except queue.Empty:
            raise self.errors.get_nowait() from None


def staging(
    chunk_bytes: int, *, lanes: int = 1, out: Stream | None = None, back: Stream | None = None
) -> DeviceStaging:
    payloads = Payloads(1, CUDA)
    pages = SeededPages(payloads, CUDA, page_bytes=PAGE, chunk_bytes=chunk_bytes, lanes=lanes)
    return DeviceStaging(payloads, CUDA, pages, out, back)


def busy() -> torch.cuda.Event:
    """Start work of seconds on another stream of the GPU. Returns the event at its end."""
    other = torch.cuda.Stream(CUDA)
    with torch.cuda.stream(other):
        torch.cuda._sleep(10_000_000_000)  # in cycles
    return other.record_event()


# --- pages --------------------------------------------------------------------------------------


def test_buffers_of_a_gpu_are_pinned() -> None:
    assert Buffers(CUDA).take(1000).is_pinned()
    assert host_memory(1000, CUDA).is_pinned()


def test_rows_that_are_scattered_on_the_gpu_are_gathered_there() -> None:
    pool = PagePool(2, 6, 3, (2, 4), torch.float16, CUDA)
    content = torch.randn(18, 2, 4, dtype=torch.float16, device=CUDA)
    rows = torch.randperm(18).tolist()
    with Stream(CUDA).here():
        pool.scatter(1, numbers(rows, CUDA), content)
        found = pool.gather(1, numbers(list(range(18)), CUDA))
    assert torch.equal(found[rows], content)


def test_seeded_pages_have_the_bytes_of_the_payloads() -> None:
    payloads = Payloads(1, CUDA)
    pages = SeededPages(payloads, CUDA, page_bytes=PAGE, chunk_bytes=MIB, lanes=1)
    for name, size in (("a", 1), ("b", 100_001), ("c", BLOCK_BYTES), ("d", 2 * BLOCK_BYTES + 7)):
        with Stream(CUDA).here():
            found = pages.gather(name, size)
        assert torch.equal(found.cpu(), payloads.of(name, size))


def test_first_tokens_are_right_with_kv_in_pages_of_the_gpu() -> None:
    """Every page has to be in its place: KV is compared element by element."""
    first = real.request(0, 48, ())
    requests = (first, real.request(1, 48, first.blocks[:4]), real.request(2, 36, ()))
    for units in ({"per_unit": 2}, {"per_unit": 4, "tp": 2, "sp": 2, "decode_tp": 2, "decode": 2}):
        cluster = real.Cluster(real.real_job(real.DENSE, requests, units=2, **units), device=CUDA)
        checks = cluster.serve()
        assert sorted(checks) == [0, 1, 2]
        for check in checks.values():
            assert check.token == check.expected_token
            assert check.logit_error < 0.005
            assert check.kv_error < 0.01


# --- lanes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_bytes", [64 * 1024, MIB])
def test_a_lane_carries_seeded_bytes_from_pages_to_pages(chunk_bytes: int) -> None:
    lane = Lane(staging(chunk_bytes), staging(chunk_bytes), chunk_bytes, 1.0)
    sizes = [1, 64 * 1024, MIB, 20 * MIB + 5]
    for number, size in enumerate(sizes):
        lane.send(f"f{number}", size)
    assert [lane.arrived() for _ in sizes] == [(f"f{number}", True) for number in range(len(sizes))]


def test_a_lane_carries_content_from_gpu_to_gpu() -> None:
    lane = Lane(staging(MIB), staging(MIB), MIB, 0.0)
    content = torch.randint(0, 256, (20 * MIB + 5,), dtype=torch.uint8, device=CUDA)
    torch.cuda.synchronize(CUDA)
    lane.send("f", len(content), lambda: content)
    assert lane.arrived() == ("f", True)
    assert lane.kept["f"].device == CUDA
    assert torch.equal(lane.kept["f"], content)


@pytest.mark.parametrize("gpu_sends", [True, False])
def test_the_other_end_of_a_lane_may_be_on_a_cpu(gpu_sends: bool) -> None:
    plain = staging_for(CPU, Payloads(1), page_bytes=PAGE, chunk_bytes=MIB, lanes=1)
    ends = (staging(MIB), plain) if gpu_sends else (plain, staging(MIB))
    lane = Lane(*ends, MIB, 1.0)
    lane.send("f", 5 * MIB)
    assert lane.arrived() == ("f", True)


def test_many_lanes_share_two_streams() -> None:
    sender, receiver = staging(MIB), staging(MIB, lanes=8)
    lanes = [Lane(sender, receiver, MIB, 1.0) for _ in range(8)]
    for lane in lanes:
        lane.send("f", 10 * MIB)
    assert [lane.arrived() for lane in lanes] == [("f", True)] * 8


def test_a_lane_does_not_wait_for_other_work_on_the_gpu() -> None:
    lane = Lane(staging(MIB), staging(MIB), MIB, 1.0)
    lane.send("first", 8 * MIB)  # allocates pinned memory, for which a GPU may have to be idle
    assert lane.arrived() == ("first", True)
    done = busy()
    lane.send("second", 8 * MIB)
    assert lane.arrived() == ("second", True)
    assert not done.query(), "something waited for the whole device"
    done.synchronize()


# --- compute ------------------------------------------------------------------------------------


def test_kernels_have_the_sizes_of_the_layer_and_last_about_as_long_as_planned() -> None:
    assert LayerKernels(LAYER, CUDA).sizes == LAYER
    compute = KernelCompute(CUDA, 10.0, LAYER)
    for label in ("attention", "mlp"):
        start = time.perf_counter()
        busy_s = compute.run(0.02, label)
        wall_s = time.perf_counter() - start
        assert 0.1 <= busy_s <= 0.4  # 0.2 s of wall time, within a factor of two
        assert busy_s <= wall_s


# --- overlap ------------------------------------------------------------------------------------

Span = tuple[float, float]


def spans(trace: Trace, origin: torch.cuda.Event) -> list[Span]:
    return [mark.span_since(origin) for _, mark in trace]


def overlap_s(one: Sequence[Span], other: Sequence[Span]) -> float:
    """For how long something of both was under way. The spans of each are one after the other."""
    return sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in one for b in other)


def total_s(them: Sequence[Span]) -> float:
    return sum(end - begin for begin, end in them)


def write_trace(path: Path, rows: dict[str, list[Span]]) -> None:
    events: list[dict[str, Any]] = [
        {"name": name, "ph": "X", "pid": 0, "tid": name, "ts": begin * 1e6, "dur": (end - begin) * 1e6}
        for name, them in rows.items()
        for begin, end in them
    ]
    path.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    print(f"\ntrace of {len(events)} spans: {path}")


def test_copies_of_both_directions_run_beside_compute(tmp_path: Path) -> None:
    """All events are of one device, so they tell for how long copies and kernels were under way together.

    How much longer copies take beside compute is printed, and not judged.
    """
    traces: dict[str, Trace] = {"device to host": [], "host to device": [], "compute": []}
    out, back, own = (Stream(CUDA, trace) for trace in traces.values())
    chunk = 4 * MIB
    lane = Lane(staging(chunk, out=out), staging(chunk, back=back), chunk, 0.0)
    compute = KernelCompute(CUDA, 1.0, LAYER, stream=own)
    lane.send("warm-up", 64 * MIB)
    assert lane.arrived() == ("warm-up", None)
    origin = torch.cuda.Event(enable_timing=True)
    origin.record()
    origin.synchronize()

    def move(name: str) -> None:
        for trace in traces.values():
            trace.clear()
        for number in range(4):
            lane.send(f"{name}{number}", 128 * MIB)
        assert [lane.arrived() for _ in range(4)] == [(f"{name}{number}", None) for number in range(4)]

    def found() -> dict[str, list[Span]]:
        return {label: spans(trace, origin) for label, trace in traces.items()}

    move("alone")
    alone = found()
    over = threading.Event()

    def layers() -> None:
        while not over.is_set():
            compute.run(0.01, "attention")
            compute.run(0.01, "mlp")

    layer_loop = threading.Thread(target=layers)
    layer_loop.start()
    try:
        move("beside")
    finally:
        over.set()
        layer_loop.join(WAIT_S)
    rows = found()
    write_trace(tmp_path / "overlap.json", rows)
    for direction in ("device to host", "host to device"):
        taken = total_s(rows[direction])
        shared = overlap_s(rows[direction], rows["compute"]) / taken
        longer = taken / total_s(alone[direction])
        print(f"{direction}: {shared:.0%} of {taken * 1e3:.1f} ms beside compute, {longer:.2f} times as long")
        assert shared > 0.5
