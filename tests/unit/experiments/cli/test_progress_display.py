"""The progress of a sweep in lines."""

from experiments.cli.progress_display import SweepLines, rough_time
from experiments.sweep.progress import SweepProgress


def test_progress_is_a_line_when_cells_are_over_but_not_too_often() -> None:
    lines: list[str] = []
    display = SweepLines(lines.append)
    for over, wall_s, left_s in ((0, 0.0, None), (1, 1.0, 3.0), (2, 4.0, 4.0), (2, 9.0, 1.0), (4, 9.5, 0.0)):
        display.update(SweepProgress(over=over, failed=over // 2, total=4, wall_s=wall_s, left_s=left_s))

    assert lines == [
        "0/4 cells, 0 s so far",
        "2/4 cells, 4 s so far, 1 failed, about 4 s left",
        "4/4 cells, 10 s so far, 2 failed",
    ]
    assert [rough_time(s) for s in (89, 91, 7140, 12_000)] == ["89 s", "2 min", "119 min", "3 h 20 min"]
