"""Fluid links: strict priority by place, max-min fair among equals, recomputed only where it matters.

A stream drains over fixed ports at one rate. Streams of one *place* share fairly. A smaller place goes
before a larger one on every port that they have in common, unless their levels have weights. Sizes are
in bytes, rates in bytes per nanosecond (binary floating point), and times in whole nanoseconds: a stream's
end is rounded up.
"""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from controller.flow import Level, PortId
from testbed.simulation._core import Links

Place = tuple[int, float]
"""Level, then order inside the level; smaller first."""

StreamId = int
"""Identifies a stream from `add` until `take_finished`; it is used again afterwards."""


def weight_list(level_weights: Mapping[Level, float]) -> list[float]:
    """Weights by level as `Links` takes them: one for each level, or none at all."""
    return [level_weights.get(level, 0.0) for level in Level] if level_weights else []


class FluidNetwork(Links):
    """The streams on ports of `bps` bits per second, in the order given.

    Changes (`add`, `move`, `take_finished`) only mark what they touch. `settle` works out the new rates
    once for all changes of a moment, so their order does not matter. It works out streams that share a
    port with a change on their level, directly or through others. On lower levels, it works out those on
    ports where the rate of the levels above has changed.

    A level that has something to send keeps the share `guarantee` of a port's rate, whatever the levels
    above have to send. What it does not use of that share is lost.

    The levels with a weight in `level_weights` share what the levels above leave of a port. Each may have its
    weight's part of it, and what a level does not use goes to the others by their weights
    (`core/weighted.cpp`). No level between two of them may be without a weight, if it has streams.

    With `ordered_ports`, the order inside a level counts on these ports only; the others share fairly among
    the streams of a level (`core/at_hosts.cpp`).

    With `bundled`, streams over the same ports with the same place and cap are worked out as one. Use it
    where many streams are alike. Rates and bytes are the same but for rounding; there are no weights.
    """

    def __init__(
        self,
        bps: Mapping[PortId, float],
        *,
        guarantee: float = 0.0,
        bundled: bool = False,
        level_weights: Mapping[Level, float] = MappingProxyType({}),
        ordered_ports: Collection[PortId] = (),
    ) -> None:
        """Raises `ValueError` for a port whose rate is not above 0, or a weight that is not."""
        capacity = [rate / 8e9 for rate in bps.values()]
        ordered = [port in ordered_ports for port in bps] if ordered_ports else []
        super().__init__(capacity, guarantee, bundled, weight_list(level_weights), ordered)
        self.guarantee = guarantee
        self.names = tuple(bps)
        self._numbers = {port: number for number, port in enumerate(bps)}

    def ports(self, path: Iterable[PortId]) -> tuple[int, ...]:
        """The numbers of the named ports. Raises `KeyError` for an unknown one."""
        return tuple(self._numbers[port] for port in path)

    def busy_ns(self, now_ns: int, port: PortId) -> float:
        """Nanoseconds that `port` takes for the bytes left of its streams, including those just added."""
        return self.port_busy_ns(now_ns, self._numbers[port])
