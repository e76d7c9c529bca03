"""Write the tables on the page of an experiment after the paper, from the sweeps that its `run` made.

    .venv/bin/python scripts/paper_tables.py experiments/paper/07-ablation/README.md runs/paper/07-ablation

A table stands between two comments. The first one says in YAML what it has. All in between is written anew:

    <!-- table: {sweep: own, against: mfs, show: [slo_attainment, ttft_mean_s]} -->
    <!-- end -->

`sweep` is the directory of a sweep below the second argument, and `show` has columns of its `sweep.csv`. A
row has means over the replicates, and how they differ from those of the policy `against` on the same work.
Other keys:

- `compare`: what `against` is a value of, if not of `policy`: a swept key, or `requests`, which is whether a
  policy has request control (`with` or `without`);
- `only`: the policies to show;
- `control`: `with` or `without`, to show only policies that have request control, or only those that do not;
- `size`: `full`, if only `run --full` runs the sweep. Such tables are written if `--full` follows the other
  arguments, and all others if not.

    <!-- rates: {search: goodput} -->
    <!-- end -->

This one has the rates that a search of `mfs capacity` found, and how many times the rate of its first policy
they are, or that of another one: `{search: goodput, against: fair}`.

    <!-- gaps: {sweeps: [own, exact], only: [mfs, stage]} -->
    <!-- end -->

This one has, for each policy, the share that it closes of the gap between `fair` and a network that takes no
time, at each point of these sweeps. They must have run with `--ceiling`. With
`where: {workload.load: [0.9]}`, only points with these values of swept keys are shown.

    <!-- leads: {sweeps: "*", of: mfs} -->
    <!-- end -->

This one has a row for each sweep whose directory the pattern names, and by how many points of SLO attainment
the policy `of` is ahead of each other one there.

Below a table is how many differences it has, and how many of them are shown. Below the first table of a sweep
is what limits its runs.
"""

import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import yaml
from paper_gaps import AskedGaps, gaps
from paper_leads import AskedLeads, leads
from paper_rates import AskedRates, rates, set_against
from paper_words import HEADINGS, POLICY, Size, directories, heading, line, words_of, wrapped

from experiments.compare.replicates import read_sweep
from experiments.errors import UserError
from experiments.results.paired import REPLICATES, Difference, over_replicates
from experiments.results.readable_numbers import NOTHING, duration, share
from experiments.sweep.plan import as_text
from experiments.sweep.results import Measure

REQUESTS = "requests"
_TABLE = re.compile(
    r"(^<!-- (table|rates|gaps|leads): (\{[^\n]*\}) -->\n)(.*?)(^<!-- end -->$)", re.DOTALL | re.M
)
_END = "<!-- end -->"

Cell = dict[str, Any]
"""A row of `sweep.json`, and what `_placed` adds."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a comment asks of a sweep."""

    sweep: str
    against: str
    show: tuple[Measure, ...]
    compare: str = POLICY
    only: tuple[str, ...] = ()
    control: Literal["with", "without"] | None = None
    size: Size = Size.SMALL

    def takes(self, cell: Cell) -> bool:
        return (not self.only or cell[POLICY] in self.only) and self.control in (None, cell[REQUESTS])


_ASKED: Final[dict[str, type[Asked | AskedGaps | AskedLeads | AskedRates]]] = {
    "table": Asked,
    "gaps": AskedGaps,
    "leads": AskedLeads,
    "rates": AskedRates,
}


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a table: the cells of its replicates, and those that they are compared with."""

    place: tuple[str, ...]
    cells: Mapping[str, Cell]
    against: Mapping[str, Cell] | None

    def mean(self, measure: Measure) -> str:
        known = [cell[measure] for cell in self.cells.values() if cell[measure] is not None]
        if not known:
            return NOTHING
        mean = statistics.fmean(known)
        return share(mean) if measure is Measure.SLO_ATTAINMENT else duration(mean)

    def difference(self, measure: Measure) -> Difference | None:
        """On the replicates that both have. None for the row that others are compared with."""
        if self.against is None:
            return None
        pairs = [(cell, self.against[name]) for name, cell in self.cells.items() if name in self.against]
        known = [
            mine[measure] - theirs[measure]
            for mine, theirs in pairs
            if mine[measure] is not None and theirs[measure] is not None
        ]
        return over_replicates(known) if known else None


def check_comments(page: str) -> None:
    """Raise `ValueError` for a comment that asks for no table, and for a table without its end.

    Either would leave an old table as it was, or take the text up to the next end for a table.
    """
    begun = None
    for number, text in enumerate(page.splitlines(), 1):
        if not text.lstrip().startswith("<!--"):
            continue
        if text == _END:
            if begun is None:
                raise ValueError(f"line {number} ends a table that did not begin")
            begun = None
        elif not _TABLE.match(f"{text}\n{_END}"):
            raise ValueError(f"line {number} asks for no table: {text}")
        elif begun is not None:
            raise ValueError(f"the table of line {begun} does not end before line {number}")
        else:
            begun = number
    if begun is not None:
        raise ValueError(f"the table of line {begun} does not end")


def filled(page: str, sweeps: Path, size: Size = Size.SMALL) -> str:
    """Return the text of `page` with all its tables of one size written anew.

    Raises `ValueError` for what `check_comments` refuses, and for a table that cannot be made.
    """
    check_comments(page)
    told: set[str] = set()

    def one(match: re.Match[str]) -> str:
        asked = msgspec.convert(yaml.safe_load(match[3]), _ASKED[match[2]])
        if asked.size is not size:
            return match[0]
        if isinstance(asked, AskedRates):
            searched = msgspec.json.decode((sweeps / asked.search / "capacity.json").read_bytes())
            lines = list(rates(searched if asked.against is None else set_against(searched, asked.against)))
        elif isinstance(asked, AskedGaps):
            named = [path for pattern in asked.sweeps for path in directories(sweeps, pattern)]
            lines = list(gaps({path.name: read_sweep(path) for path in named}, asked))
        elif isinstance(asked, AskedLeads):
            found = directories(sweeps, asked.sweeps)
            lines = list(leads({path.name: read_sweep(path) for path in found}, asked.of))
        else:
            lines = list(table(read_sweep(sweeps / asked.sweep), asked, limits=asked.sweep not in told))
            told.add(asked.sweep)
        return "".join([match[1], *(f"{one}\n" for one in lines), match[5]])

    return _TABLE.sub(one, page)


def table(content: dict[str, Any], asked: Asked, *, limits: bool = True) -> Iterator[str]:
    """Yield the lines of a table, and with `limits` what limits the runs. `content` is that of `sweep.json`.

    Raises `ValueError` if the sweep is not complete, or has nothing to compare with.
    """
    if not content["complete"]:
        raise ValueError(f"not every cell of {asked.sweep} has finished")
    swept = [key for key in content["over"] if key not in REPLICATES]
    if unknown := set(asked.only) - {cell[POLICY] for cell in content["cells"]}:
        raise ValueError(f"{asked.sweep} has no policy {', '.join(sorted(unknown))}")
    cells = [cell for cell in map(_placed, content["cells"]) if asked.takes(cell)]
    keys = [*(key for key in (*swept, POLICY) if key != asked.compare), asked.compare]
    names = [key.rpartition(".")[2] for key in keys]
    reference = f"against `{asked.against}`"
    headings = [text for measure in asked.show for text in (HEADINGS[measure], reference)]
    yield from heading([*names, *headings])
    sides = list(_sides(cells, keys, asked))
    for side in sides:
        texts = [text for one in asked.show for text in (side.mean(one), words_of(side.difference(one), one))]
        yield line([*side.place, *texts])
    yield ""
    yield from _counted(sides, asked.show)
    if limits:
        yield ""
        yield from _limits(cells, [key for key in swept if key != asked.compare])


def _placed(cell: Cell) -> Cell:
    """Add to a cell which replicate it is, and whether its policy has request control."""
    control = "with" if "+" in cell[POLICY] else "without"
    return {**cell, "replicate": f"{cell.get('window', '')} {cell['seed']}", REQUESTS: control}


def _sides(cells: Sequence[Cell], keys: Sequence[str], asked: Asked) -> Iterator[Side]:
    """The rows, in the order of the sweep. The last of `keys` is what is compared."""
    places: dict[tuple[str, ...], dict[str, dict[str, Cell]]] = {}
    for cell in cells:
        policy = cell[POLICY].partition("+")[0].strip() if asked.compare == REQUESTS else cell[POLICY]
        known = {**cell, POLICY: policy}
        place = tuple(f"`{policy}`" if key == POLICY else as_text(cell[key]) for key in keys[:-1])
        places.setdefault(place, {}).setdefault(as_text(known[keys[-1]]), {})[cell["replicate"]] = cell
    for place, sides in places.items():
        if asked.against not in sides:
            raise ValueError(f"{asked.sweep}: no {asked.compare} {asked.against!r} at {place}")
        for name, replicates in sides.items():
            yield Side(
                place=(*place, f"`{name}`" if asked.compare == POLICY else name),
                cells=replicates,
                against=None if name == asked.against else sides[asked.against],
            )


def _counted(sides: Sequence[Side], measures: Sequence[Measure]) -> list[str]:
    counts = []
    for measure in measures:
        made = [found for side in sides if (found := side.difference(measure)) is not None]
        counts.append(f"{HEADINGS[measure]}: {sum(one.shown for one in made)} of {len(made)}")
    replicates = len({name for side in sides for name in side.cells})
    return wrapped(
        f"Means over {replicates} replicates, and paired differences with 95 % intervals, in bold where these"
        f" leave out 0. Differences that are shown: {'; '.join(counts)}. One in twenty would be by chance."
    )


def _limits(cells: Sequence[Cell], keys: Sequence[str]) -> Iterator[str]:
    """Say for each point what limits the runs under `fair`, or else under all policies.

    Runs without ports, because each stage has links of its own, do not count.
    """
    cells = [cell for cell in cells if cell[Measure.PORT_BUSY] is not None]
    fair = [cell for cell in cells if cell[POLICY] == "fair"]
    whose = "Under `fair`" if fair else "Under these policies"
    points: dict[tuple[str, ...], list[Cell]] = {}
    for cell in fair or cells:
        points.setdefault(tuple(f"{key} {as_text(cell[key])}" for key in keys), []).append(cell)
    for point, alike in points.items():
        limit = statistics.mode(cell[Measure.LIMIT] for cell in alike)
        count = sum(cell[Measure.LIMIT] == limit for cell in alike)
        busy, computing, port = (
            f"{100 * statistics.fmean(cell[name] for cell in alike):.0f} %"
            for name in (Measure.GPUS_BUSY, Measure.GPUS_COMPUTING, Measure.PORT_BUSY)
        )
        where = f" at {', '.join(point)}" if point else ""
        what = {"none": "nothing", "network": "the network"}.get(limit, limit) + " limits"
        yield from wrapped(
            f"- {whose}{where}, {what} {count} of {len(alike)} runs: GPUs are busy {busy} of the time and"
            f" compute {computing}, and the busiest port is busy {port}.",
            indent="  ",
        )


def main(page: Path, sweeps: Path, size: Size) -> None:
    try:
        text = filled(page.read_text(encoding="utf-8"), sweeps, size)
    except (ValueError, UserError, OSError) as error:
        sys.exit(f"{page}: {error}")
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[3:] not in ([], ["--full"]):
        sys.exit(f"usage: {sys.argv[0]} README.md SWEEPS [--full]")
    main(Path(sys.argv[1]), Path(sys.argv[2]), Size.FULL if "--full" in sys.argv[3:] else Size.SMALL)
