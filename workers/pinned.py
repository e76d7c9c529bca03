"""How much memory of the host ranks with GPUs may pin for their lanes (`workers.staging`). Pure."""

from collections.abc import Collection, Iterable
from typing import Final

from workers.protocol import LaneSpec

FIRST_BYTES: Final = 256 * 1024
"""The first chunk of a message is no larger, because each lane has a buffer for it."""

WINDOW_BYTES: Final = 8 * 1024 * 1024
"""For how many bytes of a seeded message a lane is ready at a time."""

LEAST_WINDOW: Final = 4
"""At least for so many chunks, however large they are."""

_MOST_SHARE: Final = 0.5
_GIB: Final = 2**30


def most_pinned_bytes(lanes: Iterable[LaneSpec], ranks: Collection[int], chunk_bytes: int) -> int:
    """What `ranks` pin if all their lanes are under way at once, with messages of many chunks.

    A lane that sends has two chunks. One that receives has its first chunk, the chunks that it is ready for,
    the one that is taken and the one that is copied, and two that are read back to be compared.
    """
    ready = max(LEAST_WINDOW, WINDOW_BYTES // chunk_bytes)
    sending = 2 * chunk_bytes
    receiving = min(chunk_bytes, FIRST_BYTES) + (ready + 2) * chunk_bytes + 2 * chunk_bytes
    return sum((lane.src in ranks) * sending + (lane.dst in ranks) * receiving for lane in lanes)


def refusal(
    lanes: Iterable[LaneSpec], ranks: Collection[int], chunk_bytes: int, memory_bytes: int
) -> str | None:
    """Why `ranks` may not share a machine of `memory_bytes` with chunks of this size, in words."""
    pinned = most_pinned_bytes(lanes, ranks, chunk_bytes)
    if pinned <= _MOST_SHARE * memory_bytes:
        return None
    return (
        f"workers.chunk_kib: with chunks of {chunk_bytes / 1024:.0f} KiB, the lanes of the {len(ranks)} ranks"
        f" on this machine may pin {pinned / _GIB:.1f} GiB of its {memory_bytes / _GIB:.1f} GiB of memory;"
        f" more than {_MOST_SHARE:.0%} is too much: pinned memory is lost to everything else. Lower it, or"
        " workers.lanes_s1 and workers.lanes_s3"
    )
