"""What was done to a run because its scenario asked for it, and when: checks tell it from the rest."""

from collections.abc import Iterable

import msgspec

from controller.units import NS_PER_S
from testbed.faults import ControllerRestart, Fault, LinkFault, RankPause

_RETRY_S = 1.0
"""TCP repeats a lost segment after a time that doubles with each try, up to this long
(`testbed.emulation.network`)."""

SETTLE_S = 0.5

RECONNECT_S = 1.0
"""After the controller is back, bridges connect again at once, but it has much to read, and they get many
rules."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Wall time on CLOCK_MONOTONIC; `end_ns` is None while it has not ended."""

    begin_ns: int
    end_ns: int | None = None

    def overlaps(self, begin_ns: int, end_ns: int) -> bool:
        return self.begin_ns < end_ns and (self.end_ns is None or begin_ns < self.end_ns)

    def wider(self, before_s: float, after_s: float) -> "Window":
        end_ns = None if self.end_ns is None else self.end_ns + round(after_s * NS_PER_S)
        return Window(begin_ns=self.begin_ns - round(before_s * NS_PER_S), end_ns=end_ns)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A fault of the scenario, and the wall time in which it was in force."""

    fault: Fault
    window: Window

    @property
    def upset(self) -> Window | None:
        """The time in which TCP may lose or repeat segments because of it; None if it touches no flow.

        A link that is down loses what is on its way, and what is repeated meanwhile. A link that gets slower
        makes round trips longer than TCP has known them. What is sent to a rank that is paused is not taken,
        and is sent again. A bridge that connects again has no rules for a moment.
        """
        if isinstance(self.fault, ControllerRestart):
            end_ns = self.window.end_ns
            if end_ns is None:
                return None
            return Window(begin_ns=end_ns, end_ns=end_ns).wider(SETTLE_S, RECONNECT_S + _RETRY_S + SETTLE_S)
        if isinstance(self.fault, RankPause):
            return self.window.wider(0.0, _RETRY_S + SETTLE_S)
        if not isinstance(self.fault, LinkFault):
            return None
        if self.fault.share == 0:
            return self.window.wider(0.0, _RETRY_S + SETTLE_S)
        begin_ns = self.window.begin_ns
        return Window(begin_ns=begin_ns, end_ns=begin_ns + round((_RETRY_S + SETTLE_S) * NS_PER_S))


def longest_outside(begin_ns: int, end_ns: int, windows: Iterable[Window]) -> tuple[int, int]:
    """The longest part of an interval that is in none of `windows`: when it begins, and how long it is."""
    best_ns, longest_ns = begin_ns, 0
    for window in sorted(windows, key=lambda one: one.begin_ns):
        if window.begin_ns >= end_ns:
            break
        if window.begin_ns - begin_ns > longest_ns:
            best_ns, longest_ns = begin_ns, window.begin_ns - begin_ns
        if window.end_ns is None:
            return best_ns, longest_ns
        begin_ns = max(begin_ns, window.end_ns)
    if end_ns - begin_ns > longest_ns:
        best_ns, longest_ns = begin_ns, end_ns - begin_ns
    return best_ns, longest_ns
