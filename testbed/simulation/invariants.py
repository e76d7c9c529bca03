"""The invariants of every simulated run, checked while it runs and at its end.

docs/concepts/invariants.md lists them.
"""

from collections.abc import Mapping

from controller.flow import PortId
from testbed.record import Check, Fidelity
from testbed.simulation.links.network import FluidNetwork

_ROUNDING = 1e-6  # the share of a byte count that floating-point rounding may lose
_RATES = 1e-9  # the same for a rate


class Invariants:
    """Counts violations. A violation is a bug of the simulator, and makes the run unfaithful.

    The numbers are those of docs/concepts/invariants.md. If `on` is false, only the checks that cost no
    time are made. Max-min fairness is checked only if priority is strict, without a guarantee for lower
    levels.
    """

    def __init__(self, network: FluidNetwork, *, on: bool = True) -> None:
        self._network = network
        self._on = on
        self._last_ns = 0
        self._fullest = 0.0
        self._back = 0
        self._held_back = 0
        self._too_fast = 0
        self._disorder = 0

    def moment(self, now_ns: int) -> None:
        """The agenda, the network and the scheduler want the next moment at `now_ns`."""
        if now_ns < self._last_ns:
            self._back += 1
        self._last_ns = max(self._last_ns, now_ns)

    def sample(self) -> None:
        """Check all streams. Call `settle` of the network before."""
        if not self._on:
            return
        self._fullest = max(self._fullest, self._network.fullest_now())
        if not self._network.guarantee:
            self._held_back += self._network.held_back(_RATES)

    def flow_done(
        self, submit_ns: int, permit_ns: int, finish_ns: int, size: int, narrowest: float | None
    ) -> None:
        """A flow of `size` bytes is complete.

        `narrowest` is the rate of its path's narrowest port, in bytes per nanosecond; None if it has
        several paths or no ports.
        """
        if self._on:
            if not submit_ns <= permit_ns <= finish_ns <= self._last_ns:
                self._disorder += 1
            if narrowest is not None and size > (finish_ns - permit_ns + 1) * narrowest * (1 + _ROUNDING):
                self._too_fast += 1

    def judge(
        self,
        *,
        arrived: int,
        ended: int,
        submitted: int,
        completed: int,
        owed: Mapping[PortId, float],
        late: int,
        now_ns: int,
    ) -> Fidelity:
        """Return the checks of the whole run, at its end.

        `ended` is counted in the results, not by what ended the run. `owed` are the bytes that flows put on
        each port. `late` is how many acts were planned for a time that had passed.
        """
        sent = self._network.sent_bytes(now_ns).sum(axis=1)
        lost = max(
            (
                abs(float(size) - owed[port]) / max(1, owed[port])
                for port, size in zip(self._network.names, sent, strict=True)
            ),
            default=0.0,
        )
        fullest = max(self._fullest, self._network.fullest)
        back = self._back + late
        checks = (
            _check("1 requests ended / arrived", ended / max(1, arrived), "= 1", ended == arrived),
            _check(
                "2 flows completed / submitted", completed / max(1, submitted), "= 1", completed == submitted
            ),
            _check("3 bytes a port sent against its flows'", lost, f"<= {_ROUNDING:g}", lost <= _ROUNDING),
            _check("4 fullest port at any time", fullest, "<= 1", fullest <= 1 + _RATES),
            _check("5 flows slower than max-min has them", self._held_back, "= 0", self._held_back == 0),
            _check("6 flows faster than their path", self._too_fast, "= 0", self._too_fast == 0),
            _check("7 flows whose times are out of order", self._disorder, "= 0", self._disorder == 0),
            _check("8 times the clock went back", back, "= 0", back == 0),
        )
        return Fidelity(faithful=all(check.ok for check in checks), checks=checks)


def _check(name: str, value: float, bound: str, ok: bool) -> Check:
    advice = "" if ok else "a bug of the simulator: report it"
    return Check(name=name, value=float(value), bound=bound, unit="", ok=ok, advice=advice)
