"""What `mfs bench transport` compares, what its processes are told, and what it finds. Imports no torch."""

import enum
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from controller.curve import ClientKeys
from testbed.coordinator.delays import percentile
from workers.options import Device

KIB: Final = 1024
MIB: Final = 1024**2

LARGE_BYTES: Final = 4 * MIB
LARGE_GOAL: Final = 0.98
"""From `LARGE_BYTES` on, a lane should reach this share of what bare torch.distributed does."""

SMALL_BYTES: Final = 64 * KIB
SMALL_GOAL_US: Final = 100.0
"""Below `SMALL_BYTES`, a lane should take at most so much longer."""


SERVERS: Final = ("h1", "h2")
"""What the controller takes the two processes for."""


class Way(enum.StrEnum):
    """How a message is sent.

    - `BARE`: a send and a receive of torch.distributed, posted before;
    - `LANE`: a lane, with its header and chunks;
    - `PERMITTED`: a flow on a lane, as in a run: submitted, permitted by the controller, with progress
      reports, and completed.
    """

    BARE = "bare"
    LANE = "lane"
    PERMITTED = "permitted"


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What both processes are told: where they meet, where the controller is, and how lanes are made.

    `store` is a file, `endpoint` an address of ZeroMQ with `keys`, `unused` one that nobody listens at.
    """

    store: str
    endpoint: str
    unused: str
    keys: ClientKeys
    chunk_bytes: int
    verify_share: float
    device: Device


class Next(msgspec.Struct, frozen=True, kw_only=True):
    """The message that comes next."""

    way: Way
    flow: str
    size_bytes: int


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Send messages of `size_bytes` in turns, one in each way per turn: `least_turns`, and then until
    `seconds` have passed."""

    size_bytes: int
    seconds: float
    least_turns: int


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The times of messages of `size_bytes`, in nanoseconds and in the order of their turns, by way."""

    size_bytes: int
    times_ns: Mapping[Way, Sequence[int]]

    @property
    def turns(self) -> int:
        return len(self.times_ns[Way.BARE])

    def percentile_us(self, way: Way, q: float) -> float:
        found = percentile(self.times_ns[way], q)
        assert found is not None
        return found / 1e3

    def bytes_per_s(self, way: Way) -> float:
        """While messages are on their way, one at a time."""
        times = self.times_ns[way]
        return self.size_bytes * len(times) / (sum(times) / 1e9)

    def of_bare(self, way: Way) -> float:
        """The median over turns of the bare message's time over this one's: 1 if they are equally fast."""
        return statistics.median(bare / own for bare, own in self._pairs(way))

    def more_us(self, way: Way) -> float:
        """The median over turns of how much longer this message took than the bare one."""
        return statistics.median((own - bare) / 1e3 for bare, own in self._pairs(way))

    def meets_goal(self, way: Way) -> bool | None:
        """None if there is no goal for messages of this size."""
        if self.size_bytes >= LARGE_BYTES:
            return self.of_bare(way) >= LARGE_GOAL
        if self.size_bytes < SMALL_BYTES:
            return self.more_us(way) <= SMALL_GOAL_US
        return None

    def _pairs(self, way: Way) -> Sequence[tuple[int, int]]:
        return list(zip(self.times_ns[Way.BARE], self.times_ns[way], strict=True))


def as_json(measured: Sequence[Measured], **circumstances: Any) -> dict[str, Any]:
    """Everything that was measured, for a program."""
    return {
        **circumstances,
        "goals": {
            "from_bytes": LARGE_BYTES,
            "of_bare": LARGE_GOAL,
            "below_bytes": SMALL_BYTES,
            "more_us": SMALL_GOAL_US,
        },
        "sizes": [
            {
                "size_bytes": one.size_bytes,
                "turns": one.turns,
                "ways": {
                    way.value: {
                        "p50_us": one.percentile_us(way, 50),
                        "p99_us": one.percentile_us(way, 99),
                        "bytes_per_s": one.bytes_per_s(way),
                        "of_bare": one.of_bare(way),
                        "more_us": one.more_us(way),
                        "meets_goal": None if way is Way.BARE else one.meets_goal(way),
                    }
                    for way in Way
                },
            }
            for one in measured
        ],
    }
