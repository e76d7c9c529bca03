"""The base classes of policies that serve flows by a key, smallest first."""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from msgspec import Meta

from controller.flow import RMLQ_LEVELS, Level
from controller.parts.bands import Bands
from controller.parts.recheck import RECHECK_NS, check_recheck
from controller.policy import UNCHANGED, Policy, Verdict, Verdicts
from controller.view import ActiveFlow, View


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedOptions:
    """Raises `ValueError` for values out of range."""

    levels: Annotated[int, "K: levels to use if the fabric keeps no exact order", Meta(ge=2, le=6)] = 6

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= len(RMLQ_LEVELS):
            raise ValueError(f"levels must be 2 to {len(RMLQ_LEVELS)}, not {self.levels}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeingOptions(OrderedOptions):
    """Raises `ValueError` for values out of range."""

    recheck_ns: Annotated[int, "how often active flows are reviewed, model ns", RECHECK_NS] = 5_000_000

    def __post_init__(self) -> None:
        OrderedOptions.__post_init__(self)  # `super()` does not survive `slots=True` in 3.11
        check_recheck(self.recheck_ns)


class Ordered(Policy):
    """Smallest key first. The key is the `order`. Without `view.levels`, all flows are on P3.

    Otherwise `Bands` maps keys to K levels. Infinite keys go to the ends: `-inf` to P1, `inf` to PK. The
    values that `Bands` observes are those of flows at their submission.
    """

    Options = OrderedOptions

    ahead: ClassVar[str]
    """Ends the reason "29% of recent traffic ...", about flows that go before this one: "was smaller"."""

    def __init__(self, options: OrderedOptions) -> None:
        super().__init__(options)
        self._levels = RMLQ_LEVELS[: options.levels]
        self._bands = Bands(self._banded(self._levels))

    @abc.abstractmethod
    def key(self, now_ns: int, flow: ActiveFlow, view: View) -> float:
        """The key of `flow`, by which flows are ordered. Not NaN; beyond 2 ** 53 it is not exact."""

    @abc.abstractmethod
    def words(self, now_ns: int, flow: ActiveFlow, key: float) -> str:
        """The key in words, for the reason of a verdict."""

    def value(self, now_ns: int, key: float) -> float:
        """The value that `Bands` ranks: the key itself, unless its worth changes with time."""
        return key

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        return self._enter(now_ns, flow, self.key(now_ns, flow, view), view)

    def on_completion(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        self._bands.leave(flow.flow.id)
        return UNCHANGED

    def _banded(self, levels: Sequence[Level]) -> Sequence[Level]:
        """The levels that finite keys share, out of the K levels."""
        return levels

    def _enter(self, now_ns: int, flow: ActiveFlow, key: float, view: View) -> Verdict:
        verdict = self._place(now_ns, flow, key, view)
        if flow.flow.id in self._bands:
            self._observe_first(self.value(now_ns, key), flow.flow.size_bytes)
        return verdict

    def _observe_first(self, value: float, size_bytes: int) -> None:
        """A flow of `size_bytes` has been submitted, with a key of this `value`."""
        self._bands.observe(value, size_bytes)

    def _place(self, now_ns: int, flow: ActiveFlow, key: float, view: View) -> Verdict:
        words = self.words(now_ns, flow, key)
        if not view.levels:
            return Verdict(Level.P3, words, order=key)
        if math.isinf(key):
            return Verdict(self._levels[0 if key < 0 else -1], words, order=key)
        value = self.value(now_ns, key)
        ranked = self._bands.by_rank(value)
        level = self._bands.enter(flow.flow.id, key, value)
        reason = words + self._rank_words(value)
        if level is not ranked:
            reason += f"; {ranked.name} by rank, {level.name} to keep the order"
        return Verdict(level, reason, order=key)

    def _rank_words(self, value: float) -> str:
        share = self._bands.share_before(value)
        return ", the first seen" if share is None else f", {share:.0%} of recent traffic {self.ahead}"


class Ageing(Ordered):
    """The key is a time in model ns. It decides the order, and how far off it is decides the level.

    So a flow climbs as its time comes closer: levels are reviewed every `recheck_ns`.
    """

    Options = AgeingOptions

    def __init__(self, options: AgeingOptions) -> None:
        super().__init__(options)
        self.recheck_ns = options.recheck_ns

    def value(self, now_ns: int, key: float) -> float:
        return key - now_ns

    def wants_ticks(self, view: View) -> bool:
        return bool(view.flows) and view.levels

    def on_tick(self, now_ns: int, view: View) -> Verdicts:
        moved = self._bands.reband(now_ns)
        return {name: self._again(now_ns, view.flows[name], level) for name, level in moved.items()}

    def _again(self, now_ns: int, flow: ActiveFlow, level: Level) -> Verdict:
        key = self._bands.key(flow.flow.id)
        words = self.words(now_ns, flow, key) + self._rank_words(self.value(now_ns, key))
        return Verdict(level, words, order=key)
