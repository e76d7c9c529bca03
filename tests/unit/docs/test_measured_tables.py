"""Tables of the docs that a sweep makes: read from a page, filled from what is in sweep.json."""

from pathlib import Path
from typing import Any

import pytest
from measured_tables import Block, Refused, blocks, rows

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

PAGE = """Before.

    mfs sweep quickstart --over seed=1:2 --policy fair \\
        --policy "mfs(rho=0.9)"

<!-- remake: slo_attainment ttft_mean_s -->
| policy | SLO met | mean TTFT |
|---|---|---|
| `fair` | old | old |
<!-- end -->

After.
"""


def page(order: str, head: str = "| policy | SLO met |") -> str:
    """`order` is a command, a bar and the columns to show."""
    command, _, columns = order.partition("|")
    return f"    {command}\n\n<!-- remake:{columns} -->\n{head}\n|---|\n<!-- end -->\n"


def cell(policy: str, seed: int, **known: Any) -> dict[str, Any]:
    return {"policy": policy, "seed": seed, "error": None, **known}


def swept(*cells: dict[str, Any], over: tuple[str, ...] = ("seed",), complete: bool = True) -> dict[str, Any]:
    """As in sweep.json."""
    return {
        "over": {key: [] for key in over},
        "policies": list(dict.fromkeys(one["policy"] for one in cells)),
        "complete": complete,
        "cells": list(cells),
    }


def only(text: str) -> Block:
    (block,) = blocks(text)
    return block


def test_a_row_is_the_mean_over_seeds_of_a_policy_written_as_the_terminal_does() -> None:
    content = swept(
        cell("fair", 1, slo_attainment=0.7, ttft_mean_s=0.2),
        cell("mfs(rho=0.9)", 1, slo_attainment=0.8, ttft_mean_s=0.1),
        cell("fair", 2, slo_attainment=0.8, ttft_mean_s=0.25),
        cell("mfs(rho=0.9)", 2, slo_attainment=0.9, ttft_mean_s=0.1),
    )
    assert rows(content, only(PAGE)) == [
        "| `fair` | 75.0 % | 225 ms |",
        "| `mfs(rho=0.9)` | 85.0 % | 100 ms |",
    ]


def test_only_the_rows_are_replaced() -> None:
    again = only(PAGE).with_rows(PAGE, ["| `fair` | 75.0 % | 225 ms |", "| `mfs` | 85.0 % | 100 ms |"])
    assert again == PAGE.replace(
        "| `fair` | old | old |\n", "| `fair` | 75.0 % | 225 ms |\n| `mfs` | 85.0 % | 100 ms |\n"
    )


def test_swept_values_are_in_the_columns_beside_the_policy_in_the_order_given() -> None:
    text = page(
        "mfs sweep motivation --over gpu=a100,h100 \\\n      --over simulation.separate=false | cct_mean_s",
        "| GPU | policy | separate | CCT |",
    )
    one = cell("fair", 1, gpu="a100", cct_mean_s=0.00123) | {"simulation.separate": False}
    assert rows(swept(one, over=("gpu", "simulation.separate")), only(text)) == [
        "| a100 | `fair` | false | 1.23 ms |"
    ]


def test_one_policy_need_not_be_named() -> None:
    block = only(page("mfs sweep motivation --over gpu=a100,h100 | completed", "| GPU | completed |"))
    fair, mfs = (cell(policy, 1, gpu="a100", completed=1536) for policy in ("fair", "mfs"))
    assert rows(swept(fair, over=("gpu",)), block) == ["| a100 | 1,536 |"]
    with pytest.raises(Refused, match="2 policies, and no column 'policy'"):
        rows(swept(fair, mfs, over=("gpu",)), block)


def test_what_no_cell_has_is_a_dash() -> None:
    content = swept(cell("fair", 1, slo_attainment=None, ttft_mean_s=None))
    assert rows(content, only(PAGE)) == ["| `fair` | - | - |"]


def test_a_sweep_with_failed_cells_makes_no_table() -> None:
    with pytest.raises(Refused, match="not every cell"):
        rows(swept(complete=False), only(PAGE))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (page("mfs run quickstart | slo_attainment"), "only `mfs sweep` can be made again"),
        (page("rm -rf / | slo_attainment"), "only `mfs sweep` can be made again"),
        (page("mfs sweep quickstart"), "no columns: mfs sweep quickstart"),
        (page("mfs sweep quickstart | slo"), "slo is no column of sweep.csv"),
        (page("mfs sweep quickstart --over gpu=a100,h100 | slo_attainment"), "the headings do not fit"),
        (page("mfs sweep quickstart | slo_attainment ttft_mean_s"), "the headings do not fit"),
        (PAGE.replace("<!-- end -->", ""), "1 tables have a remake comment, 0 of them are whole"),
    ],
)
def test_what_is_not_right_is_refused(text: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        blocks(text)


def test_a_table_made_by_hand_is_left_alone() -> None:
    assert blocks("    mfs sweep quickstart\n\n| a |\n|---|\n| 1 |\n") == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_tables_of_every_page_can_be_made_again(path: Path) -> None:
    blocks(path.read_text(encoding="utf-8"))
