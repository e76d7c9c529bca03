"""Tables of the experiments after the paper: filled from what is in sweep.json."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from paper_gaps import AskedGaps, gaps
from paper_leads import AskedLeads, leads
from paper_rates import AskedRates, rates, set_against
from paper_tables import Asked, check_comments, filled, table
from paper_words import Size

from experiments.errors import UserError

ROOT = Path(__file__).parents[3]
PAGES = sorted((ROOT / "experiments" / "paper").glob("*/README.md"))


def cell(policy: str, seed: int, met: float, **known: Any) -> dict[str, Any]:
    limits = {"limit": "network", "gpus_busy": 0.9, "gpus_computing": 0.3, "port_busy": 0.4}
    return {"policy": policy, "seed": seed, "slo_attainment": met, **limits, **known}


def swept(*cells: dict[str, Any], over: tuple[str, ...] = ("seed",), complete: bool = True) -> dict[str, Any]:
    """As in sweep.json."""
    return {"over": {key: [] for key in over}, "complete": complete, "cells": list(cells)}


def rows(content: dict[str, Any], **asked: Any) -> list[str]:
    """The rows of policies, without heading."""
    lines = table(content, msgspec.convert({"sweep": "s", "show": ["slo_attainment"], **asked}, Asked))
    return [line for line in lines if line.startswith("|")][2:]


def text(content: dict[str, Any], **asked: Any) -> str:
    return " ".join(
        table(content, msgspec.convert({"sweep": "s", "show": ["slo_attainment"], **asked}, Asked))
    )


def test_a_row_has_the_mean_and_the_paired_difference_in_bold_where_it_is_shown() -> None:
    # Differences of -0.2 and -0.18: their deviation is 0.01 * sqrt(2), so the interval is 12.706 * 0.01 wide
    # to each side. Those of stage, +0.1 and -0.1, have an interval of 12.706 * 0.1.
    content = swept(
        cell("mfs", 1, 0.8),
        cell("fair", 1, 0.6),
        cell("stage", 1, 0.9),
        cell("mfs", 2, 0.7),
        cell("fair", 2, 0.52),
        cell("stage", 2, 0.6),
    )
    assert rows(content, against="mfs") == [
        "| `mfs` | 75.0 % |  |",
        "| `fair` | 56.0 % | **-19.0** [-31.7, -6.3] |",
        "| `stage` | 75.0 % | [-127.1, +127.1] |",
    ]
    assert "SLO met: 1 of 2." in text(content, against="mfs")


def test_rows_are_compared_at_their_own_point_only() -> None:
    content = swept(
        *(cell("mfs", seed, 0.9, **{"workload.load": 0.5}) for seed in (1, 2)),
        *(cell("fair", seed, 0.8, **{"workload.load": 0.5}) for seed in (1, 2)),
        *(cell("mfs", seed, 0.5, **{"workload.load": 0.9}) for seed in (1, 2)),
        *(cell("fair", seed, 0.5, **{"workload.load": 0.9}) for seed in (1, 2)),
        over=("workload.load", "seed"),
    )
    assert rows(content, against="mfs") == [
        "| 0.5 | `mfs` | 90.0 % |  |",
        "| 0.5 | `fair` | 80.0 % | **-10.0** [-10.0, -10.0] |",
        "| 0.9 | `mfs` | 50.0 % |  |",
        "| 0.9 | `fair` | 50.0 % | [+0.0, +0.0] |",
    ]


def test_values_of_a_swept_key_can_be_compared_under_each_policy() -> None:
    content = swept(
        *(cell("mfs", seed, 0.9, **{"serving.router": "kv-aware"}) for seed in (1, 2)),
        *(cell("mfs", seed, 0.7, **{"serving.router": "random"}) for seed in (1, 2)),
        over=("serving.router", "seed"),
    )
    assert rows(content, compare="serving.router", against="kv-aware") == [
        "| `mfs` | kv-aware | 90.0 % |  |",
        "| `mfs` | random | 70.0 % | **-20.0** [-20.0, -20.0] |",
    ]


def test_a_policy_with_request_control_is_compared_with_itself_without_it() -> None:
    content = swept(
        *(cell("mfs", seed, 0.8) for seed in (1, 2)),
        *(cell("mfs + requests", seed, 0.9) for seed in (1, 2)),
        *(cell("fair", seed, 0.4) for seed in (1, 2)),
        *(cell("fair + requests", seed, 0.4) for seed in (1, 2)),
    )
    assert rows(content, against="mfs + requests", control="with") == [
        "| `mfs + requests` | 90.0 % |  |",
        "| `fair + requests` | 40.0 % | **-50.0** [-50.0, -50.0] |",
    ]
    only = ["mfs", "mfs + requests"]
    assert rows(content, compare="requests", against="without", only=only) == [
        "| `mfs` | without | 80.0 % |  |",
        "| `mfs` | with | 90.0 % | **+10.0** [+10.0, +10.0] |",
    ]


def test_what_limits_the_runs_is_told_of_fair() -> None:
    content = swept(
        *(cell("mfs", seed, 0.8) for seed in (1, 2, 3)),
        cell("fair", 1, 0.6),
        cell("fair", 2, 0.6, limit="none"),
        cell("fair", 3, 0.6, gpus_busy=0.1, port_busy=None),  # its stages have links of their own
    )
    assert "Under `fair`, the network limits 1 of 2 runs: GPUs are busy 90 % of the time" in text(
        content, against="mfs"
    )


def test_an_incomplete_sweep_and_a_reference_that_is_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="not every cell"):
        text(swept(cell("mfs", 1, 0.8), complete=False), against="mfs")
    with pytest.raises(ValueError, match="no policy 'llf'"):
        text(swept(cell("mfs", 1, 0.8)), against="llf")


def found(policy: str, **known: Any) -> dict[str, Any]:
    """As in capacity.json."""
    nothing = dict.fromkeys(("rate_rps", "low", "high", "load", "holds_rps", "fails_rps"))
    ratios = dict.fromkeys(("ratio", "ratio_low", "ratio_high"))
    return {"policy": policy, "outcome": "found", "replicates": 8, **nothing, **ratios, **known}


def searched(*capacities: dict[str, Any], **known: Any) -> dict[str, Any]:
    return {
        "attain": 0.9,
        "against": "fair",
        "estimated_rps": 40.0,
        "failed": [],
        "capacities": list(capacities),
    } | known


def test_a_ratio_of_rates_is_in_bold_where_its_interval_leaves_out_one() -> None:
    interval = {"ratio_low": 1.1, "ratio_high": 1.3}
    lines = list(
        rates(
            searched(
                found("fair", rate_rps=10.0, low=9.0, high=11.0, load=0.25),
                found("mfs", rate_rps=12.0, low=11.0, high=13.0, load=0.3, ratio=1.2, **interval),
                found("stage", rate_rps=11.0, load=0.275, ratio=1.1, ratio_low=0.9, ratio_high=1.3),
            )
        )
    )
    assert lines[0] == "| policy | requests/s at 90 % | load | against `fair` |"
    assert lines[2:5] == [
        "| `fair` | 10 [9, 11] | 0.25 |  |",
        "| `mfs` | 12 [11, 13] | 0.30 | **1.20 times** [1.10, 1.30] |",
        "| `stage` | 11 | 0.28 | 1.10 times [0.90, 1.30] |",
    ]


def test_rates_can_be_set_against_another_policy_of_the_search() -> None:
    # Both fall from 1 to 0.8, so that 0.9 is half way in the logarithm of the rate: at the root of 10 * 20,
    # and at that of 20 * 40, in either seed.
    cells = [
        {"policy": policy, "seed": seed, "workload.rate": rate, "slo_attainment": met}
        for policy, low in (("fair", 10.0), ("mfs", 20.0))
        for seed in (1, 2)
        for rate, met in ((low, 1.0), (2 * low, 0.8))
    ]
    known = [found("fair", rate_rps=14.1, load=0.35), found("mfs", rate_rps=28.3, load=0.71, ratio=2.0)]
    lines = list(rates(set_against(searched(*known, cells=cells), "mfs")))
    assert lines[0] == "| policy | requests/s at 90 % | load | against `mfs` |"
    assert lines[2:4] == [
        "| `mfs` | 28.3 | 0.71 |  |",
        "| `fair` | 14.1 | 0.35 | **0.50 times** [0.50, 0.50] |",
    ]
    with pytest.raises(ValueError, match="no policy 'llf'"):
        set_against(searched(*known, cells=cells), "llf")


def test_a_rate_outside_the_search_is_told_as_such() -> None:
    lines = list(
        rates(
            searched(
                found("fair", outcome="never", fails_rps=8.0), found("mfs", outcome="always", holds_rps=64.0)
            )
        )
    )
    assert lines[2:4] == ["| `fair` | below 8 | - |  |", "| `mfs` | above 64 | - |  |"]


def test_a_search_with_failed_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="cells of the search failed"):
        list(rates(searched(found("fair"), failed=[{"cell": "cells/a", "error": "no memory"}])))


def test_tables_of_the_other_size_stay_as_they_are() -> None:
    asked = "<!-- table: {sweep: s, against: mfs, show: [slo_attainment], size: full} -->"
    page = f"{asked}\nas it was\n<!-- end -->\n"
    assert filled(page, Path("nowhere")) == page
    with pytest.raises(UserError, match="nowhere"):
        filled(page, Path("nowhere"), Size.FULL)


def test_text_without_a_table_stays_as_it_is() -> None:
    assert filled("Before.\n\n| a |\n|---|\n", Path("nowhere")) == "Before.\n\n| a |\n|---|\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_table_of_a_page_can_be_asked_for(page: Path) -> None:
    for one in re.findall(r"<!-- table: (.*?) -->", page.read_text(encoding="utf-8"), re.DOTALL):
        assert msgspec.convert(yaml.safe_load(one), Asked).show


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_table_of_rates_of_a_page_can_be_asked_for(page: Path) -> None:
    for one in re.findall(r"<!-- rates: (.*?) -->", page.read_text(encoding="utf-8")):
        assert msgspec.convert(yaml.safe_load(one), AskedRates).search


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_table_of_gaps_of_a_page_is_of_a_sweep_that_runs_with_ceilings(page: Path) -> None:
    run = (page.parent / "run").read_text(encoding="utf-8")
    for one in re.findall(r"<!-- gaps: (.*?) -->", page.read_text(encoding="utf-8")):
        asked = msgspec.convert(yaml.safe_load(one), AskedGaps)
        assert all(runs_with_ceilings(run, sweep) for sweep in asked.sweeps)


def runs_with_ceilings(run: str, sweep: str) -> bool:
    """Whether a `run` calls `gaps` for this sweep, or a function with a part of its name that does."""
    if "*" in sweep:
        return "gaps" in run and not re.search(r"\bsweep ", run.partition("source")[2])
    functions = re.findall(r'^(\w+)\(\) \{\n(?: [^\n]*\n)*? +gaps "\$1([\w-]*)"', run, re.MULTILINE)
    calls = [("gaps", sweep)] + [
        (name, sweep.removesuffix(end)) for name, end in functions if sweep.endswith(end)
    ]
    return any(re.search(rf"\b{name} {re.escape(called)} ", run) for name, called in calls)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_table_of_leads_of_a_page_can_be_asked_for(page: Path) -> None:
    for one in re.findall(r"<!-- leads: (.*?) -->", page.read_text(encoding="utf-8")):
        assert msgspec.convert(yaml.safe_load(one), AskedLeads).of


def gap(
    policy: str, measure: str, start: float, ceiling: float, closed: float | None, **known: Any
) -> dict[str, Any]:
    ends = {"reference": "fair", "reference_mean": start, "ceiling_mean": ceiling}
    interval = {"low": None, "high": None, "replicates": 8}
    return {"policy": policy, "measure": measure, "closed": closed, **ends, **interval, **known}


def gap_rows(contents: Mapping[str, dict[str, Any]], **asked: Any) -> list[str]:
    return list(gaps(contents, msgspec.convert({"sweeps": list(contents), **asked}, AskedGaps)))


def test_a_row_of_gaps_has_both_ends_and_the_share_that_is_closed() -> None:
    content = swept() | {
        "gaps": [
            gap("mfs", "slo_attainment", 0.633, 0.964, 0.408, low=0.31, high=0.52),
            gap("mfs", "ttft_mean_s", 0.325, 0.117, 0.322),
            gap("stage", "slo_attainment", 0.633, 0.964, -0.001, low=-0.02, high=0.8),
            gap("stage", "ttft_mean_s", 0.325, 0.324, None),
        ]
    }
    lines = gap_rows({"s": content})
    assert lines[0] == (
        "| policy | SLO met: `fair`, ceiling | gap closed | mean TTFT: `fair`, ceiling | gap closed |"
    )
    assert lines[2:4] == [
        "| `mfs` | 63.3 %, 96.4 % | 41 % [31, 52] | 325 ms, 117 ms | 32 % |",
        "| `stage` | 63.3 %, 96.4 % | 0 % [-2, 80] | 325 ms, 324 ms | no gap |",
    ]
    only = gap_rows({"s": content}, only=["stage"])
    assert [line for line in only if line.startswith("| `")] == [lines[3]]


def test_a_table_of_the_gaps_of_several_sweeps_says_of_which_sweep_and_point_each_row_is() -> None:
    def of(**point: Any) -> list[dict[str, Any]]:
        measures = ("slo_attainment", "ttft_mean_s")
        return [gap("mfs", measure, 0.5, 0.9, 0.25, **point) for measure in measures]

    one = swept(over=("workload.load", "seed")) | {
        "gaps": [*of(**{"workload.load": 0.6}), *of(**{"workload.load": 0.9})]
    }
    lines = gap_rows({"one": one, "other": swept() | {"gaps": of()}})
    assert lines[0].startswith("| sweep | at | policy | SLO met")
    starts = ["| one | 0.6 | `mfs` | 50.0 %", "| one | 0.9 | `mfs` | 50.0 %", "| other |  | `mfs` | 50.0 %"]
    assert all(line.startswith(start) for line, start in zip(lines[2:5], starts, strict=True))
    both = {"one": one, "two": one}
    some = gap_rows(both, where={"workload.load": [0.9]})
    assert [line[:11] for line in some[2:4]] == ["| one | 0.9", "| two | 0.9"]
    assert some[4] == ""
    with pytest.raises(ValueError, match=r"no gap of workload.load 1.2, seed 3 in one, two"):
        gap_rows(both, where={"workload.load": [0.9, 1.2], "seed": [3]})
    with pytest.raises(ValueError, match="no gap of one is at all of these"):
        gap_rows(
            {"one": swept() | {"gaps": [*of(a=1, b=1), *of(a=2, b=2)]}},
            where={"a": [1], "b": [2]},
        )


def test_a_sweep_without_ceilings_has_no_table_of_gaps() -> None:
    with pytest.raises(ValueError, match="s has no ceilings: run it with --ceiling"):
        gap_rows({"s": swept() | {"gaps": []}})
    with pytest.raises(ValueError, match="not every cell of s"):
        gap_rows({"s": swept(complete=False) | {"gaps": []}})


def test_a_row_of_leads_has_how_far_the_policy_is_ahead_of_each_rival() -> None:
    # Over fair by 0.2 and 0.18, see above; over stage by -0.1 and +0.1.
    met = {"mfs": (0.8, 0.7), "fair": (0.6, 0.52), "stage": (0.9, 0.6)}
    ahead = swept(*(cell(policy, i + 1, both[i]) for policy, both in met.items() for i in (0, 1)))
    behind = swept(*(cell(policy, i, 0.5 if policy == "mfs" else 0.6) for policy in met for i in (1, 2)))
    lines = list(leads({"01-ahead": ahead, "02-behind": behind}, "mfs"))
    assert lines[0] == "| sweep | SLO met: `mfs` | over `fair` | over `stage` |"
    assert lines[2:4] == [
        "| 01-ahead | 75.0 % | **+19.0** [+6.3, +31.7] | [-127.1, +127.1] |",
        "| 02-behind | 50.0 % | **-10.0** [-10.0, -10.0] | **-10.0** [-10.0, -10.0] |",
    ]
    assert "more and fewer: `fair` 1 and 1, `stage` 0 and 1." in " ".join(lines)


def test_leads_are_refused_of_sweeps_that_do_not_fit_into_one_table() -> None:
    known = swept(cell("mfs", 1, 0.8), cell("fair", 1, 0.6))
    with pytest.raises(ValueError, match="not every cell of s"):
        list(leads({"s": known | {"complete": False}}, "mfs"))
    with pytest.raises(ValueError, match=r"s sweeps workload\.load"):
        list(leads({"s": known | {"over": {"workload.load": [], "seed": []}}}, "mfs"))
    with pytest.raises(ValueError, match="s has no policy 'stage'"):
        list(leads({"s": known}, "stage"))
    other = swept(cell("mfs", 1, 0.8), cell("edf", 1, 0.6))
    with pytest.raises(ValueError, match="t has other policies than s"):
        list(leads({"s": known, "t": other}, "mfs"))


def test_a_pattern_that_names_no_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is called 1"):
        filled('<!-- leads: {sweeps: "1*", of: mfs} -->\n<!-- end -->\n', tmp_path)


TABLE = "<!-- table: {sweep: s, against: mfs, show: [slo_attainment]} -->"


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (
            f"{TABLE}\n| old |\n\n## Heading\n\n{TABLE}\n<!-- end -->\n",
            "the table of line 1 does not end before",
        ),
        (f"{TABLE}\n| old |\n", "the table of line 1 does not end"),
        ("| old |\n<!-- end -->\n", "line 2 ends a table that did not begin"),
        (f"{TABLE.replace('table', 'tabel')}\n<!-- end -->\n", "line 1 asks for no table"),
        (f"{TABLE.replace('} -->', '}-->')}\n<!-- end -->\n", "line 1 asks for no table"),
        (f"{TABLE}\n<!-- End -->\n", "line 2 asks for no table"),
    ],
)
def test_a_page_with_damaged_comments_is_refused(page: str, why: str) -> None:
    """Its tables would stay old, or text between two tables would be taken for one."""
    with pytest.raises(ValueError, match=why):
        filled(page, Path("nowhere"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_comments_of_every_page_are_whole(page: Path) -> None:
    check_comments(page.read_text(encoding="utf-8").replace("<!-- runs -->", TABLE))


def test_a_policy_that_no_sweep_has_is_refused() -> None:
    with pytest.raises(ValueError, match="s has no policy nope"):
        rows(swept(cell("mfs", 1, 0.8), cell("fair", 1, 0.6)), against="mfs", only=["mfs", "nope"])
    known = swept() | {
        "gaps": [gap("mfs", measure, 0.5, 0.9, 0.2) for measure in ("slo_attainment", "ttft_mean_s")]
    }
    with pytest.raises(ValueError, match="no gap of nope in s"):
        gap_rows({"s": known}, only=["nope"])
