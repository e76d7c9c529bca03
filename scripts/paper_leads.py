"""Tables of how far one policy is ahead of each other one, over many sweeps (`scripts/paper_tables.py`)."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from paper_words import HEADINGS, POLICY, Size, heading, line, words_of, wrapped

from experiments.results.paired import REPLICATES, Difference, over_replicates
from experiments.results.readable_numbers import share
from experiments.sweep.results import Measure

_MEASURE = Measure.SLO_ATTAINMENT


class AskedLeads(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a comment asks of sweeps: by how many points of SLO attainment the policy `of` is ahead of others.

    `sweeps` is a pattern of the names of their directories, as `*` for all.
    """

    sweeps: str
    of: str
    size: Size = Size.SMALL


def leads(contents: Mapping[str, dict[str, Any]], of: str) -> Iterator[str]:
    """Yield the lines of a table with a row per sweep and a column per rival of the policy `of`.

    `contents` has the `sweep.json` of sweeps, which sweep replicates only. Raises `ValueError` if one sweeps
    something else, is not complete, lacks `of`, or has other policies than the first one.
    """
    found = {sweep: _of_sweep(sweep, content, of) for sweep, content in contents.items()}
    rivals = list(next(iter(found.values()))[1])
    if odd := [sweep for sweep, (_, ahead) in found.items() if list(ahead) != rivals]:
        raise ValueError(f"{odd[0]} has other policies than {next(iter(found))}")
    yield from heading(["sweep", f"{HEADINGS[_MEASURE]}: `{of}`", *(f"over `{rival}`" for rival in rivals)])
    for sweep, (met, ahead) in found.items():
        yield line([sweep, share(met), *(words_of(ahead[rival], _MEASURE) for rival in rivals)])
    yield ""
    counts = []
    for rival in rivals:
        shown = [ahead[rival].mean for _, ahead in found.values() if ahead[rival].shown]
        counts.append(f"`{rival}` {sum(mean > 0 for mean in shown)} and {sum(mean < 0 for mean in shown)}")
    fewest = min(one.count for _, ahead in found.values() for one in ahead.values())
    yield from wrapped(
        f"Points by which `{of}` meets more, paired over {fewest} replicates, with 95 % intervals, in bold"
        f" where these leave out 0. Of {len(found)} sweeps, so many show that it meets more and fewer:"
        f" {', '.join(counts)}. One interval in twenty would leave out 0 by chance."
    )


def _of_sweep(sweep: str, content: Mapping[str, Any], of: str) -> tuple[float, dict[str, Difference]]:
    """Return the mean attainment of `of`, and by how much it is ahead of each other policy."""
    if not content["complete"]:
        raise ValueError(f"not every cell of {sweep} has finished")
    if more := [key for key in content["over"] if key not in REPLICATES]:
        raise ValueError(f"{sweep} sweeps {', '.join(more)}, and a row has one point only")
    met: dict[str, dict[Any, float]] = {}
    for cell in content["cells"]:
        if cell[_MEASURE] is not None:
            replicate = next(cell[key] for key in REPLICATES if key in cell)
            met.setdefault(cell[POLICY], {})[replicate] = cell[_MEASURE]
    if of not in met:
        raise ValueError(f"{sweep} has no policy {of!r}")
    mine = met.pop(of)
    return statistics.fmean(mine.values()), {rival: _ahead(mine, theirs) for rival, theirs in met.items()}


def _ahead(mine: Mapping[Any, float], theirs: Mapping[Any, float]) -> Difference:
    pairs: Sequence[float] = [value - theirs[name] for name, value in mine.items() if name in theirs]
    return over_replicates(pairs)
