"""What a validation found: what `validate.json` holds, and the flows behind its figures."""

from typing import Any

import msgspec

from experiments.json_text import json_text
from experiments.validate.compare import Comparison, Matched, Pair
from experiments.validate.goals import Goal
from experiments.validate.ranking import Ranking
from testbed.job import Overheads, Scale


class Simulations(msgspec.Struct, frozen=True, kw_only=True):
    """What one emulated run is compared with: simulations with ideal links, with links as the emulated
    fabric configures them, and with the overheads of the machine; None where none were asked for."""

    ideal: Comparison
    links: Comparison
    overheads: Comparison | None

    @property
    def judged(self) -> Comparison:
        return self.links if self.overheads is None else self.overheads


class PolicyResult(msgspec.Struct, frozen=True, kw_only=True):
    """One policy. `free` forms its own batches, `replayed` runs the emulated ones if there are any,
    `repeated` is another emulated run of these. `not_replayed` says why emulated batches could not be made
    again."""

    policy: str
    faithful: bool
    free: Simulations
    replayed: Simulations | None
    not_replayed: str | None
    repeated: Comparison | None


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """What `validate.json` holds. `links` and `overheads` are in model units; these None if none were asked
    for."""

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
"""The flows both runs have, by policy and by what the emulated run was compared with: for figures."""


def as_json(result: Validation) -> str:
    """With the error beside each pair of numbers: who reads the file should not have to work it out."""

    def with_errors(value: Any) -> Any:
        if isinstance(value, Pair):
            return {"emulated": value.emulated, "simulated": value.simulated, "error": value.error}
        if isinstance(value, msgspec.Struct):
            return {name: with_errors(getattr(value, name)) for name in value.__struct_fields__}
        if isinstance(value, tuple):
            return [with_errors(item) for item in value]
        return value

    return json_text({"met": result.met, **with_errors(result)})
