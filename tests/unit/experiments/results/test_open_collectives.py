"""The times of collectives are those of their shares, in whatever blocks these come."""

import random
from collections import defaultdict
from collections.abc import Sequence

import pytest
from result_rows import flow_row

from controller.flow import Stage
from experiments.results.open_collectives import OpenCollectives
from testbed.columns import batches_of
from testbed.record import FlowRow


def share(id: str, batch: str | None, coflow: str | None, submit_ns: int, finish_ns: int) -> FlowRow:
    return flow_row(
        id=id,
        stage=Stage.COLLECTIVE,
        batch=batch,
        coflow=coflow,
        submit_ns=submit_ns,
        finish_ns=finish_ns,
    )


def taken(shares: Sequence[FlowRow], units: dict[str, str], at_once: int, *, rows: int) -> list[int]:
    found = OpenCollectives(units, at_once, since_ns=0)
    for begin in range(0, len(shares), rows):
        for block in batches_of(shares[begin : begin + rows]):
            found.take(block)
    return sorted(found.took_ns().tolist())


def one_by_one(shares: Sequence[FlowRow]) -> list[int]:
    groups: dict[tuple[str | None, str], list[FlowRow]] = defaultdict(list)
    for row in shares:
        groups[row.batch, row.coflow or row.id].append(row)
    return sorted(
        max(row.finish_ns for row in group) - max(row.submit_ns for row in group) for group in groups.values()
    )


def a_run(draw: random.Random, at_once: int) -> tuple[list[FlowRow], dict[str, str]]:
    """Units that each work on up to `at_once` batches, whose collectives are called alike in every batch.

    Some shares have no coflow, and some no batch."""
    units: dict[str, str] = {}
    lines: list[list[FlowRow]] = []
    for unit in range(3):
        line: list[FlowRow] = []
        for group in range(4):
            batches = [f"p{unit}.b{group}.{i}" for i in range(draw.randint(1, at_once))]
            units |= dict.fromkeys(batches, f"p{unit}")
            for number in range(draw.randint(1, 20)):
                submit_ns = draw.randrange(100)
                coflow = draw.choice(["x", "y", None])
                row_id = f"{unit}.{group}.{number}"
                line.append(
                    share(row_id, draw.choice(batches), coflow, submit_ns, submit_ns + draw.randrange(50))
                )
        lines.append(line)
    lines.append([share(f"alone{i}", None, draw.choice(["z", None]), i, 2 * i) for i in range(5)])
    rows = []
    while any(lines):
        rows.append(draw.choice([line for line in lines if line]).pop(0))
    return rows, units


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_each_takes_from_its_last_submit_to_its_last_finish(seed: int, rows: int) -> None:
    draw = random.Random(seed)
    at_once = draw.randint(1, 3)
    shares, units = a_run(draw, at_once)
    assert taken(shares, units, at_once, rows=rows) == one_by_one(shares)


def test_those_that_were_ready_before_the_warm_up_was_over_do_not_count() -> None:
    found = OpenCollectives({}, 1, since_ns=10)
    shares = [share("a", "b0", "x", 5, 30), share("b", "b0", "x", 9, 20), share("c", "b0", "y", 5, 30)]
    for block in batches_of([*shares, share("d", "b0", "y", 10, 31)]):
        found.take(block)
    assert found.took_ns().tolist() == [21]


def test_without_shares_there_are_no_times() -> None:
    assert OpenCollectives({}, 1, since_ns=0).took_ns().tolist() == []


def test_of_a_unit_that_goes_on_to_another_batch_nothing_is_kept_but_the_times() -> None:
    """A unit with a hundred batches of ten collectives, one after the other."""
    batches = [f"b{i}" for i in range(100)]
    found = OpenCollectives(dict.fromkeys(batches, "p0"), 1, since_ns=0)
    most = 0
    for batch in batches:
        for block in batches_of([share(f"{batch}.{i}", batch, f"{batch}.c{i}", 0, i) for i in range(10)]):
            found.take(block)
        most = max(most, found.open)
    assert most <= 20
    assert len(found.took_ns()) == 1000
