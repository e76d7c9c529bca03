"""Pages: who holds which, and that what is scattered is what is gathered."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from worker_groups import CPU

from workers.pages import OutOfPages, PagePool

PAGES = 6
ROWS = 3


def pool(pages: int = PAGES) -> PagePool:
    return PagePool(2, pages, ROWS, (2,), torch.float16, CPU)


def rows_of(pages: list[int]) -> torch.Tensor:
    return torch.tensor([page * ROWS + row for page in pages for row in range(ROWS)], dtype=torch.int64)


def test_pages_that_are_taken_are_different_until_there_are_none() -> None:
    made = pool()
    taken = made.take(4) + made.take(2)
    assert sorted(taken) == list(range(6))
    with pytest.raises(OutOfPages, match="1 pages of KV are wanted, and 0 of 6 are free"):
        made.take(1)


def test_a_page_is_free_when_all_of_its_holders_have_given_it_back() -> None:
    made = pool(pages=1)
    [page] = made.take(1)
    made.share([page])
    made.give([page])
    assert made.free == 0
    made.give([page])
    assert made.take(1) == [page]


@pytest.mark.parametrize("use", [lambda made: made.give([2]), lambda made: made.share([2])])
def test_a_page_that_is_free_is_nobodys(use: Callable[[PagePool], None]) -> None:
    with pytest.raises(ValueError, match="page 2 is free"):
        use(pool())


def test_filling_pages_leaves_the_others_as_they_are() -> None:
    made = pool()
    for layer in (0, 1):
        made.scatter(layer, torch.arange(PAGES * ROWS), torch.zeros(PAGES * ROWS, 2, dtype=torch.float16))
    made.fill(torch.tensor([1, 4]), 7.0)
    for layer in (0, 1):
        assert made.gather(layer, rows_of([0, 2, 3, 5])).eq(0).all()
        assert made.gather(layer, rows_of([4, 1])).eq(7).all()


@given(st.data())
@settings(deadline=None)
def test_rows_that_are_scattered_are_gathered_in_any_order_and_no_other_row_changes(
    data: st.DataObject,
) -> None:
    made = pool()
    layer = data.draw(st.sampled_from([0, 1]))
    everything = torch.arange(PAGES * ROWS * 2, dtype=torch.float16).view(-1, 2)
    for each in (0, 1):
        made.scatter(each, torch.arange(PAGES * ROWS), everything)
    rows = data.draw(st.lists(st.integers(0, PAGES * ROWS - 1), unique=True))
    content = -1 - torch.arange(len(rows) * 2, dtype=torch.float16).view(-1, 2)
    made.scatter(layer, torch.tensor(rows, dtype=torch.int64), content)
    expected = everything.clone()
    for row, new in zip(rows, content, strict=True):
        expected[row] = new
    order = data.draw(st.permutations(range(PAGES * ROWS)))
    assert torch.equal(made.gather(layer, torch.tensor(order)), expected[list(order)])
    assert torch.equal(made.rows(1 - layer), everything)


class Tables(RuleBasedStateMachine):
    """Block tables that take, share and give back pages, each with content of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = pool()
        self.tables: list[tuple[list[int], torch.Tensor]] = []
        self.written = 0

    @rule(count=st.integers(1, 4))
    def open(self, count: int) -> None:
        free = self.pool.free
        try:
            pages = self.pool.take(count)
        except OutOfPages:
            assert count > free
            return
        assert count <= free
        self.written += 1
        content = torch.full((count * ROWS, 2), float(self.written), dtype=torch.float16)
        content[:, 1] = torch.arange(count * ROWS)
        self.pool.scatter(1, rows_of(pages), content)
        self.tables.append((pages, content))

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        pages, content = data.draw(st.sampled_from(self.tables))
        count = data.draw(st.integers(1, len(pages)))
        self.pool.share(pages[:count])
        self.tables.append((pages[:count], content[: count * ROWS]))

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        pages, _ = self.tables.pop(data.draw(st.integers(0, len(self.tables) - 1)))
        self.pool.give(pages)

    @invariant()
    def pages_that_nobody_holds_are_free(self) -> None:
        held = {page for pages, _ in self.tables for page in pages}
        assert self.pool.free == PAGES - len(held)

    @invariant()
    def every_table_has_what_was_written_to_it(self) -> None:
        for pages, content in self.tables:
            assert torch.equal(self.pool.gather(1, rows_of(pages)), content)


Tables.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestTables = Tables.TestCase
