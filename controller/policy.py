"""What a policy is: a class that turns events into verdicts, seeing but not touching the flows."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from controller.flow import Level
from controller.view import ActiveBatch, ActiveFlow, View


class PolicyError(ValueError):
    """A policy that does not exist, or an option it does not have or cannot take."""


class Verdict(NamedTuple):
    """Be at `level`, because of `reason` (in words, with the numbers that decided).

    Where the view is `exact`: among the flows of that level, smaller `order` first, and no faster
    than `rate_bps` (None: no bound). Elsewhere both say nothing.
    """

    level: Level
    reason: str
    order: float = 0.0
    rate_bps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """For policies that have nothing to choose."""


Verdicts = Mapping[str, Verdict]
"""Flow id -> verdict. Flows that are not named stay; so does a flow whose level is repeated."""

UNCHANGED: Verdicts = {}


class Policy(abc.ABC):
    """Decides levels. Only `on_submit` must be written; by default nothing changes afterwards.

    Each hook is called after the view has taken in the event, with the time in model nanoseconds.
    A policy reads no clock and draws no random number: equal events give equal verdicts. It never
    gives `Level.CONTROL`.

    `Options` is a frozen dataclass with a default for every field; its fields are the options a
    spec like `mfs(rho=0)` can set, and `Annotated[int, "..."]` gives one its line of help. `on_tick`
    is called every `recheck_ns` while `wants_ticks`. With `reads_ports` False the loads in `view.ports` are
    not kept: their capacities can be read, nothing else.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type] = NoOptions

    reads_ports: ClassVar[bool] = True
    recheck_ns: int | None = None
    rho_window_ns: int = 500_000_000

    def __init__(self, options: object) -> None:
        self.options = options

    @abc.abstractmethod
    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        """The first level of `flow`, which is in the view already."""

    def on_batch(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        """`batch` has arrived."""
        return UNCHANGED

    def on_layer(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        """`batch` begins `batch.layer`, or has no compute left."""
        return UNCHANGED

    def on_progress(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        """`flow.bytes_left` is news."""
        return UNCHANGED

    def on_completion(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        """`flow` has arrived; the view no longer has it."""
        return UNCHANGED

    def on_departure(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        """`batch` has no compute and no flow left; the view no longer has it."""
        return UNCHANGED

    def wants_ticks(self, view: View) -> bool:
        """Whether there is anything to look at periodically. Called after every event: be quick."""
        return bool(view.unpaced)

    def on_tick(self, now_ns: int, view: View) -> Verdicts:
        """`recheck_ns` have passed since the last look."""
        return UNCHANGED
