"""Whether runs or sweeps differ: `mfs compare` from Python."""

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from experiments.compare.comparison import OverReplicates, OverRequests, compared
from experiments.compare.table import render_comparison
from experiments.results.difference_words import Unit, difference_words
from experiments.results.paired import Difference
from mfs.results import Run, Source, Sweep, as_text, directory_of


class Comparison:
    """How policies differ from one of them, with intervals. `str()` of it is what `mfs compare` prints."""

    def __init__(self, found: OverRequests | OverReplicates) -> None:
        self._found = found

    @property
    def against(self) -> str:
        """What the others are compared with."""
        found = self._found
        return found.first.label if isinstance(found, OverRequests) else found.reference

    @property
    def notes(self) -> list[str]:
        """Why the comparison may mislead. Empty unless `anyway` was set."""
        return list(self._found.notes)

    @property
    def table(self) -> pa.Table:
        """A row per policy, measure and, for sweeps, point.

        Swept keys come first; then `policy`, `against`, `measure`, `mean`, `low` and `high` (the mean
        difference and its 95 % interval: seconds, or a share between -1 and 1), `count` (requests or
        replicates), `shown` (whether the interval leaves out 0) and `words`.
        """
        found = self._found
        rows = _of_requests(found) if isinstance(found, OverRequests) else _of_replicates(found)
        keys = list(dict.fromkeys(key for row in rows for key in row))
        return pa.table({key: [row.get(key) for row in rows] for key in keys})

    def __str__(self) -> str:
        return as_text(render_comparison(self._found))

    def __repr__(self) -> str:
        return f"<comparison against {self.against}, {len(self._found.differences)} differences>"


def compare(
    *sources: Run | Sweep | Source,
    against: str | None = None,
    replicates: bool = False,
    anyway: bool = False,
) -> Comparison:
    """Compare runs with runs, or sweeps with sweeps: results, or their directories.

    Args:
        against: The policy to compare with; by default the first policy of the first source.
        replicates: Each run is a replicate, such as a seed, and intervals are over them. Sweeps always are.
        anyway: Compare what is not faithful or did not have the same work, too. `notes` then says so.

    Raises:
        UserError: If the sources cannot be compared, or without `anyway`, if the comparison would mislead.
    """
    paths = [directory_of(source) for source in sources]
    return Comparison(_compared(paths, against, replicates, anyway))


def _compared(
    paths: list[Path], against: str | None, replicates: bool, anyway: bool
) -> OverRequests | OverReplicates:
    if not paths:
        raise TypeError("compare() needs at least one run, sweep or directory")
    return compared(paths, against=against, replicates=replicates, anyway=anyway)


def _of_requests(found: OverRequests) -> list[dict[str, Any]]:
    rows = []
    for one in found.differences:
        rows.append(_row({}, one.side, one.against, "slo_attainment", one.attainment, Unit.POINTS))
        if one.ttft_s is not None:
            rows.append(_row({}, one.side, one.against, "ttft_mean_s", one.ttft_s, Unit.SECONDS))
    return rows


def _of_replicates(found: OverReplicates) -> list[dict[str, Any]]:
    from experiments.compare.replicates import MEASURES

    return [
        _row(one.values, one.side, one.against, one.measure, one.difference, MEASURES[one.measure][1])
        for one in found.differences
    ]


def _row(
    values: dict[str, Any], side: str, against: str, measure: str, difference: Difference, unit: Unit
) -> dict[str, Any]:
    words = " ".join(filter(None, difference_words(difference, unit)))
    told = msgspec.structs.asdict(difference) | {"shown": difference.shown, "words": words}
    return {**values, "policy": side, "against": against, "measure": measure, **told}
