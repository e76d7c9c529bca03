"""The result of a validation: the content of `validate.json`, and the flows behind the figures."""

from typing import Any

import msgspec

from experiments.json_text import json_text
from experiments.validate.compare import Comparison, Matched, Pair
from experiments.validate.goals import Goal
from experiments.validate.ranking import Ranking
from testbed.job import Overheads, Scale


class Simulations(msgspec.Struct, frozen=True, kw_only=True):
    """One emulated run compared with simulations: with ideal links, with links as the emulated fabric
    configures them, and with the overheads of the machine (None if the scenario has none)."""

    ideal: Comparison
    links: Comparison
    overheads: Comparison | None

    @property
    def judged(self) -> Comparison:
        return self.links if self.overheads is None else self.overheads


class PolicyResult(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one policy.

    In `free` the simulator forms its own batches. In `replayed` it runs the emulated batches: None if there
    are none, or if they could not be made again, for the reason in `not_replayed`. `repeated` is another
    emulated run of the same batches, if one was made.
    """

    policy: str
    faithful: bool
    free: Simulations
    replayed: Simulations | None
    not_replayed: str | None
    repeated: Comparison | None


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `validate.json`. `links` and `overheads` are in model units; the scenario may have no
    `overheads`."""

    scenario: str
    seed: int
    scale: Scale
    command: str
    links: Overheads
    overheads: Overheads | None
    goals: tuple[Goal, ...]
    rankings: tuple[Ranking, ...]
    policies: tuple[PolicyResult, ...]

    @property
    def met(self) -> bool:
        return all(goal.met for goal in self.goals)


MatchedFlows = dict[str, dict[str, Matched]]
"""The flows of the figures, by policy and by what the emulated run was compared with."""


def as_json(result: Validation) -> str:
    """Return `result` as JSON, with the error beside each pair of numbers for the reader's convenience."""

    def with_errors(value: Any) -> Any:
        if isinstance(value, Pair):
            return {"emulated": value.emulated, "simulated": value.simulated, "error": value.error}
        if isinstance(value, msgspec.Struct):
            return {name: with_errors(getattr(value, name)) for name in value.__struct_fields__}
        if isinstance(value, tuple):
            return [with_errors(item) for item in value]
        return value

    return json_text({"met": result.met, **with_errors(result)})
