"""The tables of the docs that a sweep makes: where a page has them, and what their rows are. Pure.

Such a table follows its command and a comment with the columns of sweep.csv that it shows
(docs/measured/README.md):

        mfs sweep quickstart --over seed=1:8

    <!-- remake: slo_attainment ttft_mean_s -->
    | policy | SLO met | mean TTFT |
    |---|---|---|
    | `fair` | 74.7 % | 278 ms |
    <!-- end -->
"""

import itertools
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from experiments.results.paired import REPLICATES
from experiments.results.readable_numbers import NOTHING, duration, share
from experiments.sweep.plan import as_text
from experiments.sweep.results import Measure

SWEEP = ["mfs", "sweep"]
POLICY = "policy"

_BEGIN = re.compile(r"^<!-- remake:", re.MULTILINE)
_BLOCK = re.compile(
    r"(?P<command>(?:^    [^\n]*\n)+)\n"
    r"<!-- remake:(?P<columns>(?:(?!-->).)*)-->\n"
    r"(?P<head>\|[^\n]*)\n"
    r"\|[-:| ]+\|\n"
    r"(?P<rows>(?:\|[^\n]*\n)*)"
    r"<!-- end -->$",
    re.MULTILINE | re.DOTALL,
)


class Refused(ValueError):
    """A table that cannot be made again. The message says why, and shows its command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A table of a page. `labels` are the headings before those of `columns`: swept keys, and the policy.

    The rows are `text[start:end]` of the page.
    """

    command: tuple[str, ...]
    columns: tuple[Measure, ...]
    labels: tuple[str, ...]
    start: int
    end: int

    def with_rows(self, text: str, rows: Sequence[str]) -> str:
        """The page with these rows in place of those that it has."""
        return text[: self.start] + "".join(f"{row}\n" for row in rows) + text[self.end :]


def blocks(text: str) -> list[Block]:
    """The tables of a page that a sweep makes. Raises `Refused` for one that is not as it has to be."""
    found = [_block(match) for match in _BLOCK.finditer(text)]
    begun = len(_BEGIN.findall(text))
    if begun != len(found):
        raise Refused(
            f"{begun} tables have a remake comment, {len(found)} of them are whole: an indented command,"
            " a blank line, the comment, a heading, a line of dashes, rows, <!-- end -->"
        )
    return found


def _block(match: re.Match[str]) -> Block:
    order = " ".join(match["command"].replace("\\\n", " ").split())
    command, names = shlex.split(order), match["columns"].split()
    if command[:2] != SWEEP:
        raise Refused(f"only `mfs sweep` can be made again, not: {order}")
    if not names:
        raise Refused(f"no columns: {order}")
    unknown = next((name for name in names if name not in list(Measure)), None)
    if unknown is not None:
        raise Refused(f"{unknown} is no column of sweep.csv ({', '.join(Measure)}): {order}")
    headings = [cell.strip() for cell in match["head"].strip().strip("|").split("|")]
    labels = headings[: max(0, len(headings) - len(names))]
    keys = _swept(command)
    if not labels or len(labels) - (POLICY in labels) != len(keys):
        wanted = ", ".join([POLICY, *keys, *names])
        raise Refused(f"the headings do not fit; one for each of {wanted}: {order}")
    return Block(
        command=tuple(command),
        columns=tuple(Measure(name) for name in names),
        labels=tuple(labels),
        start=match.start("rows"),
        end=match.end("rows"),
    )


def _swept(command: Sequence[str]) -> list[str]:
    """The keys of `--over` but the seed and the window, in the order given."""
    values = [value for option, value in itertools.pairwise(command) if option == "--over"]
    values += [word.removeprefix("--over=") for word in command if word.startswith("--over=")]
    return [key for key in (value.partition("=")[0].strip() for value in values) if key not in REPLICATES]


def rows(content: dict[str, Any], block: Block) -> list[str]:
    """A line for each policy and combination of values, in the order of the sweep: means over seeds.

    `content` is that of sweep.json. Raises `Refused` where cells are missing, or several policies are to
    share a table that does not name them.
    """
    if not content["complete"]:
        raise Refused("not every cell of the sweep has finished")
    if POLICY not in block.labels and len(content["policies"]) > 1:
        raise Refused(f"{len(content['policies'])} policies, and no column {POLICY!r}")
    keys = [key for key in content["over"] if key not in REPLICATES]
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for cell in content["cells"]:
        values = iter(as_text(cell[key]) for key in keys)
        place = tuple(f"`{cell[POLICY]}`" if name == POLICY else next(values) for name in block.labels)
        alike.setdefault(place, []).append(cell)
    return [
        f"| {' | '.join([*place, *(_mean(name, cells) for name in block.columns)])} |"
        for place, cells in alike.items()
    ]


def _mean(measure: Measure, cells: Sequence[dict[str, Any]]) -> str:
    values = [cell[measure] for cell in cells if cell[measure] is not None]
    if not values:
        return NOTHING
    mean = fmean(values)
    if measure.endswith("_s"):
        return duration(mean)
    if measure in (Measure.SLO_ATTAINMENT, Measure.FAITHFUL):
        return share(mean)
    return f"{mean:,.1f}".removesuffix(".0")
