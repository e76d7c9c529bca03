"""What the scheduler refuses of what a policy returns."""

import math
from collections.abc import Mapping

from controller.flow import Level
from controller.policy import Policy, Verdict, weights_of

_LEVELS = frozenset(Level)


class SchedulerError(ValueError):
    """An unknown or repeated id or an impossible value, from the caller or in what a policy returned."""


class VerdictChecks:
    """Checks what `policy` returns. Raises `PolicyError` for weights that no fabric can carry out.

    `given` are the levels that it may give: if it has weights, those with one, and SCAVENGER.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy.name
        self._weighted = sorted(weights_of(policy))
        all_given = _LEVELS - {Level.CONTROL}
        self.given = frozenset({*self._weighted, Level.SCAVENGER}) if self._weighted else all_given

    def check(self, about: str, verdict: Verdict) -> None:
        """Raises `SchedulerError` for a level, order or rate that the policy may not give."""
        if verdict.level is Level.CONTROL:
            raise SchedulerError(f"policy {self._policy!r} put {about} on the control level")
        if verdict.level not in _LEVELS or math.isnan(verdict.order):
            raise SchedulerError(
                f"policy {self._policy!r} gave {about} the level {verdict.level!r} and the"
                f" order {verdict.order!r}; levels are {', '.join(level.name for level in Level)}"
            )
        if verdict.level not in self.given:
            raise SchedulerError(
                f"policy {self._policy!r} put {about} on {verdict.level.name}, which has no weight; the"
                f" levels with one are {', '.join(level.name for level in self._weighted)}"
            )
        if verdict.rate_bps is not None and verdict.rate_bps <= 0:
            raise SchedulerError(f"policy {self._policy!r} gave {about} a rate of {verdict.rate_bps} bits/s")

    def check_mapping(self, hook: str, returned: object) -> None:
        """Raises `SchedulerError` unless `hook` returned a mapping to verdicts."""
        if not isinstance(returned, Mapping) or not all(
            isinstance(verdict, Verdict) for verdict in returned.values()
        ):
            raise self.wrong_return(hook, returned, "which does not map flow ids to Verdicts")

    def wrong_return(self, hook: str, what: object, wrong: str) -> SchedulerError:
        """The error about `what` a hook of the policy returned; `wrong` says what is wrong with it."""
        return SchedulerError(f"policy {self._policy!r} returned {what!r} from {hook}, {wrong}")
