"""Process groups over loopback, as the ranks of one server have them."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from workers.process_groups import ProcessGroups

T = TypeVar("T")
CPU = torch.device("cpu")
WAIT_S = 10.0


def side_by_side(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run blocking calls at the same time, as ranks do. Raises the first exception of any."""
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            results[index] = jobs[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    if errors:
        raise errors[0]
    assert len(results) == len(jobs), "a rank is still waiting"
    return [results[i] for i in range(len(jobs))]


def connected(size: int, name: str = "group", device: torch.device = CPU) -> list[Any]:
    """Open a gloo process group of `size` ranks on `device`, all in this process; return each rank's side."""
    store = dist.HashStore()

    def open_side(rank: int) -> Callable[[], Any]:
        transport = ProcessGroups(store=store, store_port=0, interface="lo", device=device, nccl=False)
        return lambda: transport.group(name, rank, size)[0]

    return side_by_side([open_side(rank) for rank in range(size)])
