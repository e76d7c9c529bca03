"""Ranks on GPUs: tensors are in GPU memory, and what crosses the network comes from there."""

import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch
from free_port import free_port
from worker_groups import connected

from workers.collectives import CollectiveGroup
from workers.compute import MatmulCompute
from workers.device_choice import choose_device
from workers.options import Device
from workers.payload import Payloads
from workers.plan import Collective, CollectiveKind

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

CUDA = torch.device("cuda", 0)


def test_auto_takes_the_gpu_and_nccl_only_where_every_rank_has_its_own() -> None:
    count = torch.cuda.device_count()
    device, nccl = choose_device(Device.AUTO, rank=0, ranks=count)
    assert (device, nccl) == (CUDA, True)
    assert choose_device(Device.AUTO, rank=count, ranks=count + 1) == (CUDA, False)


def test_matrix_products_keep_the_gpu_busy_for_about_the_modelled_time() -> None:
    compute = MatmulCompute(CUDA, time_dilation=10.0)
    start = time.perf_counter()
    compute.run(0.02, "mlp")
    assert 0.1 <= time.perf_counter() - start <= 0.4  # 0.2 s of wall time, within a factor of two


def test_compute_does_not_wait_for_other_work_on_the_gpu() -> None:
    compute = MatmulCompute(CUDA, time_dilation=1.0)
    other = torch.cuda.Stream(CUDA)
    with torch.cuda.stream(other):
        torch.cuda._sleep(5_000_000_000)  # in cycles: some seconds
    done = other.record_event()
    compute.run(0.001, "mlp")
    assert not done.query()


def test_a_collective_does_not_wait_for_other_work_on_the_gpu() -> None:
    """The time that a copy of a transfer takes is not that of a layer."""
    payloads = Payloads(1, CUDA)
    step = Collective(id="sum", group="g", kind=CollectiveKind.ALL_REDUCE, sizes=((8000,),), label="")
    groups = [
        CollectiveGroup("g", end, (0, 1), rank, payloads, CUDA, staged=True)
        for rank, end in enumerate(connected(2, device=CUDA))
    ]

    def carry_out() -> None:
        threads = [
            threading.Thread(
                target=group.carry_out, args=(step, 1.0, lambda number: None), kwargs={"verify": True}
            )
            for group in groups
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

    carry_out()  # allocates pinned memory, for which a GPU may have to be idle
    other = torch.cuda.Stream(CUDA)
    with torch.cuda.stream(other):
        torch.cuda._sleep(5_000_000_000)
    done = other.record_event()
    carry_out()
    assert not done.query()


def test_collectives_without_a_gpu_each_are_staged_and_right() -> None:
    payloads = Payloads(1, CUDA)
    groups = [
        CollectiveGroup("g", end, (0, 1), rank, payloads, CUDA, staged=True)
        for rank, end in enumerate(connected(2, device=CUDA))
    ]
    failures: list[BaseException] = []

    def use(group: CollectiveGroup) -> None:
        try:
            group.all_to_all("a2a", ((0, 300_000), (7, 0)), verify=True)
            group.all_reduce("sum", 800_000, verify=True)
            group.tree_all_reduce("trees", 800_000, 4, verify=True)
            group.all_gather("shards", (5, 300_000), verify=True)
            group.ring_attention("blocks", (5, 300_000), lambda number: None, verify=True)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(group,)) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL needs a GPU per rank: two of them")
def test_collectives_over_nccl_are_right() -> None:
    port = free_port()
    program = textwrap.dedent(
        f"""
        import sys, torch, torch.distributed as dist
        from workers.collectives import CollectiveGroup
        from workers.payload import Payloads
        from workers.process_groups import ProcessGroups
        rank = int(sys.argv[1])
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
        store = dist.TCPStore("127.0.0.1", {port}, is_master=rank == 0, wait_for_workers=False)
        transport = ProcessGroups(store=store, store_port={port}, interface="lo", device=device, nccl=True)
        group, _ = transport.group("g", rank, 2)
        ends = CollectiveGroup("g", group, (0, 1), rank, Payloads(1, device), device, staged=False)
        ends.all_to_all("a2a", ((0, 300_000), (7, 0)), verify=True)
        ends.all_reduce("sum", 800_000, verify=True)
        ends.tree_all_reduce("trees", 800_000, 4, verify=True)
        ends.all_gather("shards", (5, 300_000), verify=True)
        ends.ring_attention("blocks", (5, 300_000), lambda number: None, verify=True)
        """
    )
    ranks = [subprocess.Popen([sys.executable, "-c", program, str(rank)]) for rank in (0, 1)]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
