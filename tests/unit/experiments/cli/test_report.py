"""`mfs report` on existing directories."""

from pathlib import Path

import pytest
from toy_fabric import TWO_FLOWS, Mfs


@pytest.mark.parametrize(
    ("holds", "told"),
    [
        ("sweep.html", "the directory of a sweep; its page is there/sweep.html"),
        ("validate.json", "the directory of a validation; its page is there/report.html"),
    ],
)
def test_a_report_on_another_kind_of_directory_says_where_its_page_is(
    mfs: Mfs, tmp_path: Path, holds: str, told: str
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / holds).touch()

    assert mfs("report", "there") == 2

    assert told in mfs.err


def test_a_report_can_be_written_again_elsewhere(mfs: Mfs, tmp_path: Path) -> None:
    assert mfs(*TWO_FLOWS, "--out", "one") == 0
    assert mfs(*TWO_FLOWS, "--out", "two") == 0

    assert mfs("report", "one", "two", "--out", "both.html") == 0

    assert mfs.out == "both.html\n"
    assert (tmp_path / "both.html").stat().st_size > 1000
