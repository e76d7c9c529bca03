"""The heartbeat of a rank: it measures pauses of the process, and tells the coordinator that it runs.

If the coordinator is on the same machine, what the rank has recorded goes with it: a long run must not fill
the memory of its ranks. On real servers the data may take the way of the flows, so it is sent at the end.
"""

import threading
import time

import zmq

from controller.pulse import BEAT_S, Pulse
from workers.clock import Clock
from workers.protocol import Beat, Rows, encode
from workers.recorder import Recorder
from workers.wire import Outbox

_BEATS_PER_REPORT = 10  # a second: silence is judged in tens of seconds


class Heart:
    """Beats in a thread of its own, from its making on. With `hand_over`, it sends what was recorded."""

    def __init__(
        self, rank: int, clock: Clock, recorder: Recorder, coordinator: Outbox, *, hand_over: bool
    ) -> None:
        self._clock = clock
        self.pulse = Pulse(clock.wall_ns())
        self._rank = rank
        self._recorder = recorder
        self._coordinator = coordinator
        self._hand_over = hand_over
        threading.Thread(target=self._run, name="heart", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._coordinator.send(encode(Beat(rank=self._rank, steps=self._recorder.steps)))
                if self._hand_over:
                    self._recorder.hand_over(self._rank, self._clock.late_ms, self._send)
            except zmq.ZMQError:
                return  # the rank leaves, and has closed the socket
            for _ in range(_BEATS_PER_REPORT):
                time.sleep(BEAT_S)
                self.pulse.beat(self._clock.wall_ns())

    def _send(self, rows: Rows) -> None:
        self._coordinator.send(encode(rows))
