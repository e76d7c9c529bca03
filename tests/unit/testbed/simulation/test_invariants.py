"""Each invariant of docs/concepts/invariants.md, kept and broken."""

import re
from pathlib import Path

import pytest

from testbed.record import Fidelity
from testbed.simulation.invariants import Invariants
from testbed.simulation.links.network import FluidNetwork

PAGE = Path(__file__).parents[4] / "docs" / "concepts" / "invariants.md"


def played() -> tuple[FluidNetwork, Invariants]:
    """1,000 B over a at 1 B/ns: sent at 1,000 ns."""
    network = FluidNetwork({"a": 8 * 10**9})
    invariants = Invariants(network)
    network.add((0,), 1_000, (1, 0.0))
    network.settle(0)
    invariants.sample()
    invariants.moment(1_000)
    network.take_finished(1_000)
    network.settle(1_000)
    return network, invariants


def judged(invariants: Invariants, **changed: object) -> Fidelity:
    facts = {
        "arrived": 1,
        "ended": 1,
        "submitted": 1,
        "completed": 1,
        "owed": {"a": 1_000},
        "now_ns": 1_000,
        "late": 0,
    }
    return invariants.judge(**(facts | changed))  # type: ignore[arg-type]


def broken(fidelity: Fidelity) -> list[int]:
    return [int(check.name.split()[0]) for check in fidelity.checks if not check.ok]


def test_a_run_that_keeps_them_all() -> None:
    _, invariants = played()
    invariants.flow_done(0, 0, 1_000, 1_000, 1.0)
    fidelity = judged(invariants)
    assert broken(fidelity) == []
    assert fidelity.faithful


@pytest.mark.parametrize(
    ("number", "changed"),
    [(1, {"ended": 0}), (2, {"completed": 0}), (3, {"owed": {"a": 1_001}}), (8, {"late": 1})],
)
def test_what_is_counted_at_the_end(number: int, changed: dict[str, object]) -> None:
    _, invariants = played()
    fidelity = judged(invariants, **changed)
    assert broken(fidelity) == [number]
    assert not fidelity.faithful


def test_a_port_that_carried_too_much() -> None:
    network = FluidNetwork({"a": 8 * 10**9})
    invariants = Invariants(network)
    stream = network.add((0,), 1_000, (1, 0.0))
    network.settle(0)
    network.falsify(stream, 1.001)
    invariants.sample()
    assert broken(judged(invariants)) == [4]


def test_a_stream_that_is_held_back() -> None:
    network = FluidNetwork({"a": 8 * 10**9})
    invariants = Invariants(network)
    stream = network.add((0,), 1_000, (1, 0.0))
    network.settle(0)
    network.falsify(stream, 0.5)
    invariants.sample()
    assert 5 in broken(judged(invariants))


@pytest.mark.parametrize(
    ("number", "times", "size"),
    [
        (6, (0, 0, 900), 1_000),  # at 1 B/ns it takes 1,000 ns
        (7, (10, 5, 1_000), 900),
        (7, (0, 901, 900), 0),
        (7, (0, 0, 1_001), 1_000),  # the clock says 1,000
    ],
)
def test_flows_that_cannot_be(number: int, times: tuple[int, int, int], size: int) -> None:
    _, invariants = played()
    invariants.flow_done(*times, size, 1.0)
    assert broken(judged(invariants)) == [number]


def test_a_clock_that_goes_back() -> None:
    _, invariants = played()
    invariants.moment(999)
    invariants.moment(1_000)
    assert broken(judged(invariants)) == [8]


def test_switched_off_flows_and_streams_are_not_looked_at() -> None:
    network = FluidNetwork({"a": 8 * 10**9})
    invariants = Invariants(network, on=False)
    invariants.flow_done(10, 5, 0, 10**9, 1.0)
    assert broken(judged(invariants, owed={"a": 0})) == []


def test_the_page_has_the_numbers_of_the_checks() -> None:
    _, invariants = played()
    numbers = [int(check.name.split()[0]) for check in judged(invariants).checks]
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.M)] == numbers
