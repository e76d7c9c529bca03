"""The compiled core of the simulator; the C++ is in `core/`."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SOURCES: str
"""What `controller.compiled.digest_of` said of the C++ files when this was built."""

LEVELS: int

class Links:
    """The streams on ports of these capacities, in bytes per nanosecond (`core/links.hpp`).

    An argument that can be no such thing raises `ValueError`, a stream, port or level that there is not
    `IndexError`.
    """

    def __init__(self, capacity: Sequence[float], guarantee: float) -> None: ...
    def __len__(self) -> int:
        """The number of streams."""

    def capacity(self, port: int) -> float:
        """Rate of the port with number `port`, in bytes per nanosecond."""

    def add(
        self,
        ports: Sequence[int],
        size: float,
        place: tuple[int, float],
        cap: float | None = None,
        weights: Sequence[float] | None = None,
    ) -> int:
        """Add a stream of `size` bytes, above 0, over one or more different ports, and return its id.

        Its rate is at most `cap` bytes per nanosecond. With `weights`, it takes that many times its rate on
        each of the ports, like several connections that move in step. It begins at the next `settle`.
        """

    def move(self, stream: int, place: tuple[int, float], cap: float | None = None) -> None:
        """Give `stream` this place and cap from the next `settle` on."""

    def next_end_ns(self) -> int | None:
        """When the next stream ends if nothing changes; None if none does. Call `settle` before."""

    def take_finished(self, now_ns: int) -> list[int]:
        """Remove and return the streams that have ended by `now_ns`, in order of addition."""

    def settle(self, now_ns: int) -> None:
        """Work out the rates that hold from `now_ns` on."""

    def rate(self, stream: int) -> float:
        """Rate of `stream` as of the last `settle`, in bytes per nanosecond at weight 1."""

    def left_bytes(self, now_ns: int) -> list[float]:
        """Bytes left of each stream, by its id, as of `now_ns`. Ids that are not in use have no meaning."""

    def sent_bytes(self, now_ns: int) -> npt.NDArray[np.float64]:
        """Bytes that each port has sent so far, by level, in an array of shape (ports, LEVELS).

        Call `settle` before, so that rates are up to date.
        """

    def port_busy_ns(self, now_ns: int, port: int) -> float:
        """Nanoseconds that `port` takes for the bytes left of its streams, including those just added."""

    @property
    def worked_out(self) -> tuple[int, int]:
        """How often rates have been worked out so far, and for how many streams in all."""

    @property
    def fullest(self) -> float:
        """The largest share of its capacity that the sharing has ever given any port to carry."""

    def fullest_now(self) -> float:
        """The largest share of its capacity that any port carries now, added up from its streams.

        Call `settle` before. The cost grows with the number of all streams.
        """

    def held_back(self, tolerance: float) -> int:
        """How many streams are slower than strict priority and max-min fairness would have them.

        Call `settle` before. `tolerance` is relative. The cost grows with the number of all streams.
        """

    def rows(self) -> int:
        """The largest id that any stream has had, plus 1."""

    def falsify(self, stream: int, factor: float) -> None:
        """Multiply the rate of `stream`, which no sharing would do. For tests of what notices it."""
