"""The faults of a scenario, as its file gives them."""

import enum
from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel, ConfigDict, Field


class FaultKind(enum.StrEnum):
    LINK_DOWN = "link-down"
    LINK_RATE = "link-rate"
    STRAGGLER = "straggler"
    PAUSE = "pause"
    UNIT_LOST = "unit-lost"
    DECODE_LOST = "decode-lost"
    SWITCH_RESTART = "switch-restart"
    CONTROLLER_RESTART = "controller-restart"


_KEYS: Final = {
    FaultKind.LINK_DOWN: ("link",),
    FaultKind.LINK_RATE: ("link", "share"),
    FaultKind.STRAGGLER: ("rank", "factor"),
    FaultKind.PAUSE: ("rank", "to_s"),
    FaultKind.UNIT_LOST: ("unit",),
    FaultKind.DECODE_LOST: ("worker",),
    FaultKind.SWITCH_RESTART: ("switch", "to_s"),
    FaultKind.CONTROLLER_RESTART: ("to_s",),
}
"""The keys that a kind needs. It takes no others but `from_s` and `to_s`."""


class FaultSpec(BaseModel):
    """One fault. Times are model seconds from the start of the run; without `to_s` it lasts to the end."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: FaultKind
    link: str | None = None
    share: float | None = Field(default=None, ge=0.001, lt=1)
    rank: int | None = Field(default=None, ge=0)
    factor: float | None = Field(default=None, gt=1, le=1000)
    unit: str | None = None
    worker: int | None = Field(default=None, ge=0)
    switch: str | None = None
    from_s: float = Field(default=0.0, ge=0, le=1e6)
    to_s: float | None = Field(default=None, gt=0, le=1e6)


def problem_with_faults(faults: tuple[FaultSpec, ...]) -> tuple[str, str] | None:
    """Return the key and the reason for the first fault that is not valid; None if all are valid.

    Whether there is such a link or rank is known only once the cluster is resolved.
    """
    return next(
        (problem for i, fault in enumerate(faults) for problem in _problems(f"faults[{i}]", fault)), None
    )


def _problems(key: str, fault: FaultSpec) -> Iterator[tuple[str, str]]:
    needed = _KEYS[fault.kind]
    for name in sorted({name for names in _KEYS.values() for name in names}):
        given = getattr(fault, name) is not None
        if given and name not in (*needed, "to_s"):
            yield f"{key}.{name}", f"a fault of kind {fault.kind} has no {name}"
        if not given and name in needed:
            yield f"{key}.{name}", f"a fault of kind {fault.kind} needs it"
    if fault.to_s is not None and fault.to_s <= fault.from_s:
        yield (
            f"{key}.to_s",
            f"{fault.to_s:g} is not after from_s ({fault.from_s:g}); it is a time of the run, not a duration",
        )
