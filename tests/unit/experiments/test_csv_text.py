"""CSV: numbers and text as they are, but nothing that a spreadsheet would run."""

import csv
import io

import pytest

from experiments.csv_text import csv_text


def test_cells_come_back_as_they_were() -> None:
    rows = [["mfs(rho=0, rli=off)", -1, 1.5, None, True, 'a "word"', "-3e-4", "two\rlines"]]
    assert list(csv.reader(io.StringIO(csv_text(rows)))) == [
        ["mfs(rho=0, rli=off)", "-1", "1.5", "", "True", 'a "word"', "-3e-4", "two\nlines"]
    ]


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "-"])
def test_text_that_a_spreadsheet_would_run_is_told_to_be_text(text: str) -> None:
    assert list(csv.reader(io.StringIO(csv_text([[text]]), newline=""))) == [[f"'{text}"]]
