"""What a policy is: a class that turns events into verdicts. It sees the flows and does not change them."""

import abc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec

from controller.flow import RMLQ_LEVELS, Level, Stage
from controller.view import ActiveBatch, ActiveFlow, FlowGroup, View

LEAST_WEIGHT: Final = 1e-3
MOST_WEIGHT: Final = 1e6
MOST_WEIGHT_RATIO: Final = 1000
"""The largest weight of a level is at most so many times the smallest.

The simulator works out what levels use to 1e-12 of a port (`testbed/simulation/core/weighted.cpp`), and
law 5 compares rates to 1e-9. A level with a smaller part than a thousandth gets rates that are less exact.
Switches do not offer as much: the emulated fabric refuses parts below 0.9 %.
"""


class PolicyError(ValueError):
    """A policy that does not exist or does not load, or an option that it does not have or cannot take."""


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The level of a flow, and the reason in words, with the numbers that decided.

    If the view is `exact`, the fabric serves the flows of a level by `order`, smallest first, and no flow
    faster than its `rate_bps` (None: no bound). Otherwise both are ignored.
    """

    level: Level
    reason: str
    order: float = 0.0
    rate_bps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """The options of a policy that has none."""


Verdicts = Mapping[str, Verdict] | Mapping[FlowGroup, Verdict]
"""Flow id, or group of flows -> verdict.

Flows that are not named stay as they are; a repeated verdict changes nothing.
"""

UNCHANGED: Verdicts = {}


class Policy(abc.ABC):
    """Gives flows their levels.

    A subclass sets `name` and `summary` and writes `on_submit`. The other hooks change nothing by default.
    Each hook is called after the view has taken in the event, with the time in model nanoseconds. A policy
    reads no clock and draws no random number: equal events give equal verdicts. It never gives
    `Level.CONTROL`.

    `Options` is a frozen dataclass with a default for every field. Its fields are the options that a
    spec like `mfs(rho=0)` can set; `Annotated[int, "..."]` gives a field its line of help.

    `on_tick` is called every `recheck_ns` (None: never) while `wants_ticks` is true. A hook may change
    `recheck_ns`: the next tick is then that long after it, unless it is due earlier. `rho_window_ns` is
    the time constant of `view.ports.rho`. If `reads_ports` is False, `view.ports` keeps no loads, and only
    the capacities can be read. If `reads_progress` is False, `on_progress` may never be called, and the
    `bytes_left` of a flow may stay at its size until it completes; the loads of ports are right all the same.

    `level_weights` says how ports share their rate among levels, instead of by strict priority (None): each
    level that has something to send may have its weight's part of what such levels share, and what it does
    not use goes to the others by their weights. Weights are of levels P1 to P6 and within the bounds of
    `unfit_weights`. A policy with weights gives levels that have one, or SCAVENGER, which all of them go
    before. They are checked when the policy is made and when a fabric reads them at the start, by
    `weights_of`, and they do not change.

    `by_group` says that each flow is in one `FlowGroup`, that only `on_submit` gives verdicts on single
    flows, and that the policy asks `view.left_on_ports` for what flows have left. A fabric can then move
    whole groups, and report no progress. If so, `level`, `order`, `rate_bps` and `bytes_left` of a flow in
    the view mean nothing.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type] = NoOptions

    reads_ports: ClassVar[bool] = True
    reads_progress: bool = True
    by_group: ClassVar[bool] = False
    level_weights: Mapping[Level, float] | None = None
    recheck_ns: int | None = None
    rho_window_ns: int = 500_000_000

    def __init__(self, options: object) -> None:
        self.options = options

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # What a class says of its methods does not hold for a subclass that has methods of its own.
        if any(_is_method(name, member) for name, member in vars(cls).items()):
            if "standing" not in vars(cls):
                cls.standing = Policy.standing  # type: ignore[method-assign]
            if "reads_progress" not in vars(cls):
                cls.reads_progress = True
            if "by_group" not in vars(cls):
                cls.by_group = False

    def standing(self, stage: Stage, batch: ActiveBatch | None, view: View) -> Verdict | None:
        """The verdict on every flow of `stage` that belongs to `batch`, now and later; None if there is none.

        A policy may give one where its verdict depends on nothing but the stage and the batch, and where it
        looks at none of these flows: a fabric need not submit them, so no hook and no `view` has them. Their
        bytes count in `view.ports` all the same. It is asked when the first of these flows is submitted.
        """
        return None

    @abc.abstractmethod
    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        """The first verdict on `flow`, which is in the view already."""

    def on_batch(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        """`batch` has arrived."""
        return UNCHANGED

    def on_layer(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        """`batch` begins `batch.layer`, which is 1 or more, or its compute is over."""
        return UNCHANGED

    def on_progress(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        """`flow.bytes_left` has become smaller."""
        return UNCHANGED

    def on_completion(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        """`flow` has arrived; the view no longer has it."""
        return UNCHANGED

    def on_departure(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        """`batch` has no compute and no flow left; the view no longer has it."""
        return UNCHANGED

    def wants_ticks(self, view: View) -> bool:
        """Whether any flow needs a periodic look. Called after every event, so it must be fast."""
        return bool(view.unpaced)

    def on_tick(self, now_ns: int, view: View) -> Verdicts:
        """`recheck_ns` has passed since the last tick, or since ticks were first wanted."""
        return UNCHANGED


def unfit_weights(weights: Iterable[float]) -> str | None:
    """Say why levels cannot have `weights`, or return None."""
    found = tuple(weights)
    if not all(LEAST_WEIGHT <= weight <= MOST_WEIGHT for weight in found):  # nan compares with nothing
        return f"each weight must be {LEAST_WEIGHT:g} to {MOST_WEIGHT:,.0f}"
    if found and max(found) > MOST_WEIGHT_RATIO * min(found):
        return f"the largest weight may be at most {MOST_WEIGHT_RATIO:,} times the smallest"
    return None


def weights_of(policy: Policy) -> Mapping[Level, float]:
    """The weights of levels that `policy` asks for; empty for strict priority.

    Raises `PolicyError` for weights that no fabric can carry out.
    """
    weights = policy.level_weights or {}
    for level in weights:
        if level not in RMLQ_LEVELS:
            raise PolicyError(
                f"policy {policy.name!r} gives {level!r} a weight;"
                f" weights are of {RMLQ_LEVELS[0].name} to {RMLQ_LEVELS[-1].name}"
            )
    problem = unfit_weights(weights.values())
    if problem is not None:
        told = ", ".join(f"{level.name} {weight:g}" for level, weight in weights.items())
        raise PolicyError(f"policy {policy.name!r} gives levels the weights {told}: {problem}")
    return weights


def _is_method(name: str, member: object) -> bool:
    """Whether `member` of a class is a method, other than of Python's own. `Options`, a class, is none."""
    return callable(member) and not isinstance(member, type) and not name.startswith("__")
