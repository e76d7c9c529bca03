"""The curves of a report are made from all flows and have a few hundred points."""

from pathlib import Path

import numpy as np
import pytest
from record_factory import serving_record

from controller.flow import Stage
from experiments.results.distributions import (
    POINTS,
    curve,
    distributions,
    read_distributions,
    write_distributions,
)
from experiments.results.measures import ExposedS1, Measures, measure


def test_few_values_are_all_kept_with_the_share_that_is_at_most_as_large() -> None:
    found = curve([30.0, 10.0, 20.0, 20.0])
    assert (found.count, found.values) == (4, [10.0, 20.0, 20.0, 30.0])
    assert found.shares().tolist() == [0.25, 0.5, 0.75, 1.0]
    assert found.shares(total=8).tolist() == [0.125, 0.25, 0.375, 0.5]


def test_of_many_values_those_at_even_ranks_are_kept_with_both_ends() -> None:
    found = curve(np.arange(39_901)[::-1])  # ranks 0, 100, 200 ...: 39,900 / 399
    assert found.count == 39_901
    assert found.values == [100.0 * i for i in range(POINTS)]
    assert found.shares()[[0, -1]].tolist() == [1 / 39_901, 1.0]


def test_nothing_is_a_curve_without_points() -> None:
    assert curve([]).values == []
    assert curve([]).shares().tolist() == []


def test_the_exposed_s1_of_a_layer_is_the_mean_over_batches() -> None:
    flows = measure(serving_record(requests=2, layers=1)).flows
    exposed = ExposedS1(wait_ns=np.array([10, 40, 20]), layer=np.array([0, 3, 0]))
    assert distributions(Measures(flows=flows, exposed_s1=exposed)).exposed_s1_ns == {0: 15.0, 3: 40.0}


def test_curves_come_back_from_their_file(tmp_path: Path) -> None:
    found = distributions(measure(serving_record(requests=6, layers=2)))
    write_distributions(tmp_path / "distributions.json", found)
    assert read_distributions(tmp_path / "distributions.json") == found
    assert found.stage_ns[Stage.P2D.value].count == 12


def test_a_damaged_file_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "distributions.json").write_text('{"stage_ns": 1}')
    with pytest.raises(ValueError, match="stage_ns"):
        read_distributions(tmp_path / "distributions.json")
