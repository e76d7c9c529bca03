"""Measures, before the clock starts, whether every link carries its nominal rate while all are busy."""

import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from controller.units import NS_PER_S
from workers.clock import Clock
from workers.protocol import Probed, ProbeSpec, encode
from workers.wire import Outbox

_CHUNK_BYTES = 128 * 1024


class ProbeEnd:
    """One end of a probe lane. The receiving end reports how long the bytes took (`Probed`)."""

    def __init__(
        self,
        spec: ProbeSpec,
        group: Any,
        *,
        sends: bool,
        clock: Clock,
        coordinator: Outbox,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._spec = spec
        self._group = group
        self._sends = sends
        self._clock = clock
        self._coordinator = coordinator
        self._failed = failed

    def run(self, wire_bytes: int, at_wall_ns: int) -> None:
        threading.Thread(target=self._run, args=(wire_bytes, at_wall_ns), daemon=True).start()

    def _run(self, wire_bytes: int, at_wall_ns: int) -> None:
        try:
            chunks = max(2, wire_bytes // _CHUNK_BYTES)
            buffers = [torch.zeros(_CHUNK_BYTES, dtype=torch.uint8) for _ in range(chunks)]
            if self._sends:
                time.sleep(max(0.0, (at_wall_ns - self._clock.wall_ns()) / NS_PER_S))
                for work in [self._group.send([buffer], 1, 0) for buffer in buffers]:
                    work.wait()
            else:
                self._receive(buffers)
        except BaseException as error:
            self._failed(error)

    def _receive(self, buffers: list[torch.Tensor]) -> None:
        works = [self._group.recv([buffer], 0, 0) for buffer in buffers]
        works[0].wait()
        first_wall_ns = time.monotonic_ns()
        for work in works[1:]:
            work.wait()
        seconds = (time.monotonic_ns() - first_wall_ns) / NS_PER_S
        self._coordinator.send(
            encode(
                Probed(
                    probe=self._spec.id,
                    wire_bytes=_CHUNK_BYTES * (len(buffers) - 1),
                    seconds=seconds,
                )
            )
        )
