"""The goals that a simulation has to meet. Pure."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from experiments.validate.compare import FLOW_ERROR, Comparison
from experiments.validate.ranking import Ranking


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """A goal of the simulation, and whether it is met. `value` is what was found, in words."""

    name: str
    value: str
    met: bool


def _worst(errors: Iterable[tuple[str, float | None]]) -> tuple[str, float] | None:
    """The policy with the largest absolute error, and its error; None if no error is known."""
    known = [(abs(error), name, error) for name, error in errors if error is not None]
    if not known:
        return None
    _, name, error = max(known)
    return name, error


def goals_of(
    *,
    free: Mapping[str, Comparison],
    replayed: Mapping[str, Comparison],
    rankings: Sequence[Ranking],
    unfaithful: Sequence[str],
    mean_error: float,
    flow_share: float,
) -> tuple[Goal, ...]:
    """Return the goals for the compared policies. A goal without anything to judge it by is left out.

    `free` has the comparisons, by policy, in which the simulator forms its own batches; `replayed` those in
    which it runs the emulated batches. Flows are judged by `replayed` only, collectives by `replayed` where
    it has the policy: other batches have other flows, and comparing their means says little.

    `unfaithful` are the policies whose emulated runs cannot be trusted. `mean_error` is the largest allowed
    error of a mean, `flow_share` the least share of right flows.
    """
    goals: list[Goal] = []
    if unfaithful:
        goals.append(Goal(name="emulated runs are faithful", value=f"not {', '.join(unfaithful)}", met=False))
    same_collectives = {policy: replayed.get(policy, one) for policy, one in free.items()}
    for name, errors in (
        ("mean TTFT", [(policy, one.ttft_mean_s.error) for policy, one in free.items()]),
        (
            "mean collective completion time",
            [(policy, one.cct_mean_s.error) for policy, one in same_collectives.items()],
        ),
    ):
        found = _worst(errors)
        if found is not None:
            policy, error = found
            goals.append(
                Goal(
                    name=f"{name} within {mean_error:.0%}",
                    value=f"{error:+.1%} ({policy})",
                    met=abs(error) <= mean_error,
                )
            )
    shares = [(one.within, policy) for policy, one in replayed.items() if one.within is not None]
    if shares:
        share, policy = min(shares)
        goals.append(
            Goal(
                name=f"{flow_share:.0%} of flows within {FLOW_ERROR:.0%}",
                value=f"{share:.1%} ({policy})",
                met=share >= flow_share,
            )
        )
    for ranking in rankings:
        apart = ", ".join(f"{a} before {b}" for a, b in ranking.contradicted)
        goals.append(
            Goal(
                name=f"same ranking by {ranking.measure}",
                value=f"not {apart}" if apart else "no two policies in opposite order",
                met=not apart,
            )
        )
    return tuple(goals)
