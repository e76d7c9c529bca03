"""A table that is too wide goes on below, with its first columns again, and nothing of it is cut."""

import io

from rich.console import Console
from rich.text import Text

from experiments.fitted_table import FittedTable


def shown(table: FittedTable, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def numbers(keys: int = 1) -> FittedTable:
    """Return a table of a policy and three numbers: 6 + 1, and three times 5 + 1, is 25 columns."""
    table = FittedTable(title=Text("a title"), keys=keys)
    table.add_column("policy", overflow="fold")
    for heading in ("aaaaa", "bbbbb", "ccccc"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("fair", "1.5ms", "2", "3")
    table.add_row("mfs", "4", "5", "6.5ms")
    return table


def test_a_table_that_fits_is_one_table() -> None:
    assert shown(numbers(), 25) == [
        "a title",
        "policy aaaaa bbbbb ccccc",
        "fair   1.5ms     2     3",
        "mfs        4     5 6.5ms",
    ]


def test_columns_that_do_not_fit_go_below_the_others_beside_the_key() -> None:
    assert shown(numbers(), 24) == [
        "a title",
        "policy aaaaa bbbbb",
        "fair   1.5ms     2",
        "mfs        4     5",
        "",
        "policy ccccc",
        "fair       3",
        "mfs    6.5ms",
    ]


def test_all_keys_are_repeated() -> None:
    assert shown(numbers(keys=2), 24)[5:] == [
        "policy aaaaa ccccc",
        "fair   1.5ms     3",
        "mfs        4 6.5ms",
    ]


def test_lines_are_broken_between_words_before_columns_go_below() -> None:
    """ "no difference" needs 10 columns: its longer word. With the policy that is 7 + 11 + 6."""
    table = FittedTable()
    table.add_column("policy")
    table.add_column("met", justify="right")
    table.add_column("n", justify="right", no_wrap=True)
    table.add_row("mfs", "no difference", "12345")
    assert shown(table, 24) == [
        "policy        met     n",
        "mfs            no 12345",
        "       difference",
    ]
    assert shown(table, 23) == [
        "policy           met",
        "mfs    no difference",
        "",
        "policy     n",
        "mfs    12345",
    ]


def folded(policy: str, width: int) -> list[str]:
    """Return the lines of a table with a number of five digits beside a policy."""
    table = FittedTable()
    table.add_column("policy", overflow="fold")
    table.add_column("n", no_wrap=True)
    table.add_row(Text(policy), "12345")
    return shown(table, width)


def test_a_long_spec_of_a_policy_is_broken_between_its_options() -> None:
    assert folded("mfs(promote=layer,levels=4)", 25) == [
        "policy             n",
        "mfs(promote=layer, 12345",
        "levels=4)",
    ]


def test_a_spec_is_not_broken_in_a_number() -> None:
    assert folded("static(weights=99:1)", 22) == [
        "policy          n",
        "static(         12345",
        "weights=99:1)",
    ]


def test_a_word_without_any_break_is_cut_into_lines_if_it_is_very_long() -> None:
    assert folded("a" * 30, 32) == ["policy                    n", f"{'a' * 25} 12345", "a" * 5]


def test_in_a_very_narrow_terminal_each_column_has_a_table_of_its_own() -> None:
    headings = [line for line in shown(numbers(), 13) if line.startswith("policy")]
    assert headings == ["policy aaaaa", "policy bbbbb", "policy ccccc"]
