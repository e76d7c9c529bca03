"""Whether two runs put the policies in the same order."""

from typing import Any

import pytest

from experiments.validate.compare import Pair
from experiments.validate.ranking import rank


def ranked(tie: float = 0.0, relative: bool = False, **values: tuple[float, float]) -> Any:
    pairs = {name: Pair(*both) for name, both in values.items()}
    return rank("TTFT", pairs, smaller_is_better=True, tie=tie, relative=relative)


def test_the_same_order_is_a_tau_of_one() -> None:
    ranking = ranked(a=(1, 10), b=(2, 20), c=(3, 30))
    assert ranking.emulated == ranking.simulated == ("a", "b", "c")
    assert (ranking.tau, ranking.contradicted) == (1.0, ())


def test_a_pair_in_opposite_order_is_named_as_the_emulated_run_has_it() -> None:
    """Two of three pairs agree and one does not: (2 - 1) / 3."""
    ranking = ranked(a=(1, 2), b=(2, 1), c=(3, 3))
    assert ranking.tau == pytest.approx(1 / 3)
    assert ranking.contradicted == (("a", "b"),)


def test_what_is_closer_than_the_noise_is_not_told_apart() -> None:
    """In the first run a and b differ by 2 % of 102, a tie; the second puts b before a. The first has 2
    pairs that do not tie, the second 3; they agree on 2: 2 / sqrt(6)."""
    ranking = ranked(tie=0.03, relative=True, a=(100, 120), b=(102, 100), c=(200, 200))
    assert ranking.contradicted == ()
    assert ranking.tau == pytest.approx(2 / 6**0.5)


def test_nothing_told_apart_has_no_tau() -> None:
    assert ranked(a=(1, 1), b=(1, 2)).tau is None
