"""How long permits take, for people who watch a run. Pure: the shell says what time it is."""

from typing import Final

_MOST_KEPT: Final = 4096


class PermitMeter:
    """Notes when flows are submitted and permitted.

    The latency of a permit does not include the wait for a lane. If nobody asks, only the first few thousand
    latencies since the last look are kept.
    """

    def __init__(self) -> None:
        self.permits = 0
        self._sent_wall_ns: dict[str, int] = {}
        self._latencies_ns: list[int] = []

    def submitted(self, flow: str, sent_wall_ns: int) -> None:
        self._sent_wall_ns[flow] = sent_wall_ns

    def permitted(self, flow: str, lane_wait_wall_ns: int, wall_ns: int) -> None:
        self.permits += 1
        latency_ns = wall_ns - self._sent_wall_ns.pop(flow) - lane_wait_wall_ns
        if len(self._latencies_ns) < _MOST_KEPT:
            self._latencies_ns.append(latency_ns)

    def taken_ms(self) -> tuple[float, ...]:
        """Return the latencies since the last call, in wall milliseconds."""
        taken, self._latencies_ns = self._latencies_ns, []
        return tuple(round(ns / 1e6, 3) for ns in taken)
