"""What the scheduler refuses of what a policy returns."""

import math
from collections.abc import Collection, Mapping

from controller.flow import Level
from controller.policy import Policy, Verdict, weights_of

_LEVELS = frozenset(Level)

_GIVEN = _LEVELS - {Level.CONTROL}


def levels_given(policy: Policy) -> Collection[Level]:
    """The levels that `policy` may give: if it has weights, only those with one, and SCAVENGER.

    Raises `PolicyError` for weights that no fabric can carry out.
    """
    weights = weights_of(policy)
    return _GIVEN & {*weights, Level.SCAVENGER} if weights else _GIVEN


class SchedulerError(ValueError):
    """An unknown or repeated id or an impossible value, from the caller or in what a policy returned."""


def are_verdicts(returned: object) -> bool:
    return isinstance(returned, Mapping) and all(
        isinstance(verdict, Verdict) for verdict in returned.values()
    )


def wrong_return(policy: str, hook: str, what: object, wrong: str) -> SchedulerError:
    """The error about `what` a hook of a policy returned; `wrong` says what is wrong with it."""
    return SchedulerError(f"policy {policy!r} returned {what!r} from {hook}, {wrong}")


def check_verdict(policy: str, about: str, verdict: Verdict, given: Collection[Level]) -> None:
    """Raises `SchedulerError` for a level (not in `given`), order or rate that a policy may not give."""
    if verdict.level is Level.CONTROL:
        raise SchedulerError(f"policy {policy!r} put {about} on the control level")
    if verdict.level not in _LEVELS or math.isnan(verdict.order):
        raise SchedulerError(
            f"policy {policy!r} gave {about} the level {verdict.level!r} and the"
            f" order {verdict.order!r}; levels are {', '.join(level.name for level in Level)}"
        )
    if verdict.level not in given:
        raise SchedulerError(
            f"policy {policy!r} put {about} on {verdict.level.name}, which has no weight; the levels with one"
            f" are {', '.join(level.name for level in sorted(given) if level is not Level.SCAVENGER)}"
        )
    if verdict.rate_bps is not None and verdict.rate_bps <= 0:
        raise SchedulerError(f"policy {policy!r} gave {about} a rate of {verdict.rate_bps} bits/s")
