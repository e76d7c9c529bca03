"""Tables of the share of the gap to the ceiling that policies close (`scripts/paper_tables.py`)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from paper_words import POLICY, Size, heading, line, wrapped

from experiments.results.paired import REPLICATES
from experiments.results.readable_numbers import duration, share
from experiments.sweep.plan import as_text
from experiments.sweep.results import Measure


class AskedGaps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a comment asks of the ceilings of sweeps, by their names or patterns of them, as `*` for all.

    `only` has the policies to show, and `where` the values to show of swept keys.
    """

    sweeps: tuple[str, ...]
    only: tuple[str, ...] = ()
    where: dict[str, tuple[Any, ...]] = {}
    size: Size = Size.SMALL

    def takes(self, row: Mapping[str, Any]) -> bool:
        of_policy = not self.only or row[POLICY] in self.only
        return of_policy and all(row.get(key) in values for key, values in self.where.items())

    def unknown(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return what is asked for and no row has."""
        policies = {row[POLICY] for row in rows}
        found = [policy for policy in self.only if policy not in policies]
        for key, values in self.where.items():
            there = [row.get(key) for row in rows]
            found += [f"{key} {as_text(value)}" for value in values if value not in there]
        return found


def gaps(contents: Mapping[str, dict[str, Any]], asked: AskedGaps) -> Iterator[str]:
    """Yield the lines of a table of the gaps that policies close. `contents` has the `sweep.json` of sweeps.

    Raises `ValueError` if a sweep is not complete or has run without ceilings, or if what `asked` names is in
    none of them.
    """
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    rows: list[Mapping[str, Any]] = []
    for sweep, content in contents.items():
        if not content["complete"]:
            raise ValueError(f"not every cell of {sweep} has finished")
        if not content["gaps"]:
            raise ValueError(f"{sweep} has no ceilings: run it with --ceiling")
        swept = [key for key in content["over"] if key not in REPLICATES]
        rows += content["gaps"]
        for row in content["gaps"]:
            if asked.takes(row):
                point = ", ".join(as_text(row[key]) for key in swept)
                found.setdefault((sweep, point, f"`{row[POLICY]}`"), {})[row["measure"]] = row
    if unknown := asked.unknown(rows):
        raise ValueError(f"no gap of {', '.join(unknown)} in {', '.join(contents)}")
    if not found:
        raise ValueError(f"no gap of {', '.join(contents)} is at all of these: {asked.where}")
    of_one = len(contents) == 1
    pointless = not any(point for _, point, _ in found)
    left_out = [of_one, pointless, False]
    reference = rows[0]["reference"]
    ends, closed = f"`{reference}`, ceiling", "gap closed"
    headings = [
        *_kept(("sweep", "at", POLICY), left_out),
        f"SLO met: {ends}",
        closed,
        f"mean TTFT: {ends}",
        closed,
    ]
    yield from heading(headings)
    for place, of_place in found.items():
        met, ttft = of_place[Measure.SLO_ATTAINMENT], of_place[Measure.TTFT_MEAN_S]
        texts = [_ends(met, share), _closed(met), _ends(ttft, duration), _closed(ttft)]
        yield line([*_kept(place, left_out), *texts])
    counts = sorted({row["replicates"] for of_place in found.values() for row in of_place.values()})
    yield ""
    yield from wrapped(
        f"The gap is from `{reference}` to a network that takes no time, over {' or '.join(map(str, counts))}"
        " replicates. Shares have 95 % intervals."
    )


def _ends(row: Mapping[str, Any], words: Callable[[float], str]) -> str:
    return f"{words(row['reference_mean'])}, {words(row['ceiling_mean'])}"


def _closed(row: Mapping[str, Any]) -> str:
    if row["closed"] is None:
        return "no gap"
    interval = "" if row["low"] is None else f" [{_percent(row['low'])}, {_percent(row['high'])}]"
    return f"{_percent(row['closed'])} %{interval}"


def _percent(part: float) -> int:
    return round(100 * part)


def _kept(texts: Sequence[str], left_out: Sequence[bool]) -> list[str]:
    return [text for text, out in zip(texts, left_out, strict=True) if not out]
