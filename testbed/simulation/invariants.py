"""The invariants of every simulated run. The core counts violations, and they are judged at the end.

docs/concepts/invariants.md lists them.
"""

import numpy as np

from testbed.record import Check, Fidelity
from testbed.simulation._core import Core

_ROUNDING = 1e-6  # the share of a byte count that floating-point rounding may lose
_RATES = 1e-9  # the same for a rate


def judge(core: Core, *, arrived: int, ended: int, completed: int) -> Fidelity:
    """Return the checks of the whole run, at its end. A violation is a bug of the simulator.

    The numbers are those of docs/concepts/invariants.md. `ended` and `completed` are counted in the results,
    not by what ended the run. Max-min fairness is checked only if priority is strict, without a guarantee for
    lower levels.
    """
    owed = core.owed_bytes()
    lost = np.abs(core.sent_bytes().sum(axis=1) - owed) / np.maximum(1, owed)
    worst = float(lost.max(initial=0.0))
    back = core.back + core.late
    submitted = core.submitted
    checks = (
        _check("1 requests ended / arrived", ended / max(1, arrived), "= 1", ended == arrived),
        _check("2 flows completed / submitted", completed / max(1, submitted), "= 1", completed == submitted),
        _check("3 bytes a port sent against its flows'", worst, f"<= {_ROUNDING:g}", worst <= _ROUNDING),
        _check("4 fullest port at any time", core.fullest, "<= 1", core.fullest <= 1 + _RATES),
        _check("5 flows slower than max-min has them", core.slow_streams, "= 0", core.slow_streams == 0),
        _check("6 flows faster than their path", core.too_fast, "= 0", core.too_fast == 0),
        _check("7 flows whose times are out of order", core.disorder, "= 0", core.disorder == 0),
        _check("8 times the clock went back", back, "= 0", back == 0),
    )
    return Fidelity(faithful=all(check.ok for check in checks), checks=checks)


def _check(name: str, value: float, bound: str, ok: bool) -> Check:
    advice = "" if ok else "a bug of the simulator: report it"
    return Check(name=name, value=float(value), bound=bound, unit="", ok=ok, advice=advice)
