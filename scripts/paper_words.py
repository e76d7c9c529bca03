"""What the tables of experiments share: headings, the size of a run, and the form of lines."""

import enum
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from experiments.results.difference_words import Unit, difference_words
from experiments.results.paired import Difference
from experiments.sweep.results import Measure


class Size(enum.StrEnum):
    """Which runs a table is made from: those of `run`, or those that only `run --full` makes."""

    SMALL = "small"
    FULL = "full"


POLICY: Final = "policy"
_WIDTH: Final = 119
HEADINGS: Final = {
    Measure.SLO_ATTAINMENT: "SLO met",
    Measure.TTFT_MEAN_S: "mean TTFT",
    Measure.TTFT_P99_S: "p99 TTFT",
    Measure.CCT_MEAN_S: "mean CCT",
    Measure.EARLINESS_MEAN_S: "mean earliness of S3",
}


def directories(sweeps: Path, pattern: str) -> list[Path]:
    """Return the sweeps in a directory that a name or a pattern names, by name.

    Raises `ValueError` if there are none.
    """
    found = sorted(path.parent for path in sweeps.glob(f"{pattern}/sweep.json"))
    if not found:
        raise ValueError(f"no sweep in {sweeps} is called {pattern}")
    return found


def words_of(difference: Difference | None, measure: Measure) -> str:
    """Return a difference and its interval, or the interval only if no difference is shown."""
    if difference is None:
        return ""
    unit = Unit.POINTS if measure is Measure.SLO_ATTAINMENT else Unit.SECONDS
    mean, interval = difference_words(difference, unit)
    return f"**{mean.removesuffix(' points')}** {interval}" if difference.shown else interval


def line(texts: Sequence[str]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(texts)} |"


def heading(texts: Sequence[str]) -> list[str]:
    """Return the first two lines of a table."""
    return [line(texts), "|" + "---|" * len(texts)]


def wrapped(text: str, indent: str = "") -> list[str]:
    """Return lines of a page, without a break before a per cent sign."""
    lines = textwrap.wrap(text.replace(" %", "\0%"), _WIDTH, subsequent_indent=indent)
    return [line.replace("\0", " ") for line in lines]
