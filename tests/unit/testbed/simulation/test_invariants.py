"""The laws of docs/concepts/invariants.md, judged by what the core has counted."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from testbed.record import Fidelity
from testbed.simulation.invariants import judge
from testbed.simulation.links.network import FluidNetwork

PAGE = Path(__file__).parents[4] / "docs" / "concepts" / "invariants.md"


def judged(*, arrived: int = 1, ended: int = 1, completed: int = 1, **changed: Any) -> Fidelity:
    """One flow of 1,000 B over one port, after a run in which nothing went wrong but what `changed` says."""
    counted = {
        "sent_bytes": lambda: np.array([[0.0, 600.0, 400.0]]),
        "owed_bytes": lambda: np.array([1_000.0]),
        "submitted": 1,
        "fullest": 1.0,
        "slow_streams": 0,
        "too_fast": 0,
        "disorder": 0,
        "back": 0,
        "late": 0,
    }
    core: Any = SimpleNamespace(**(counted | changed))
    return judge(core, arrived=arrived, ended=ended, completed=completed)


def broken(fidelity: Fidelity) -> list[int]:
    return [int(check.name.split()[0]) for check in fidelity.checks if not check.ok]


def test_a_run_that_keeps_them_all() -> None:
    fidelity = judged()
    assert broken(fidelity) == []
    assert fidelity.faithful


@pytest.mark.parametrize(
    ("number", "changed"),
    [
        (1, {"ended": 0}),
        (2, {"completed": 0}),
        (3, {"owed_bytes": lambda: np.array([1_001.0])}),
        (4, {"fullest": 1.001}),
        (5, {"slow_streams": 1}),
        (6, {"too_fast": 1}),
        (7, {"disorder": 1}),
        (8, {"back": 1}),
        (8, {"late": 1}),
    ],
)
def test_each_of_them_broken(number: int, changed: dict[str, Any]) -> None:
    fidelity = judged(**changed)
    assert broken(fidelity) == [number]
    assert not fidelity.faithful


def test_a_port_that_carries_too_much() -> None:
    network = FluidNetwork({"a": 8 * 10**9})
    stream = network.add((0,), 1_000, (1, 0.0))
    network.settle(0)
    assert network.fullest_now() == 1.0
    network.falsify(stream, 1.001)
    assert network.fullest_now() == pytest.approx(1.001)


def test_a_stream_that_is_held_back() -> None:
    network = FluidNetwork({"a": 8 * 10**9})
    stream = network.add((0,), 1_000, (1, 0.0))
    network.settle(0)
    assert network.held_back(1e-9) == 0
    network.falsify(stream, 0.5)
    assert network.held_back(1e-9) == 1


def test_the_page_has_the_numbers_of_the_checks() -> None:
    numbers = [int(check.name.split()[0]) for check in judged().checks]
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.M)] == numbers
