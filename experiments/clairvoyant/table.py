"""What `mfs clairvoyant` prints: a table, and sentences on what was shown."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from experiments.clairvoyant.content import FOUND
from experiments.fitted_table import FittedTable
from experiments.results.gap import CEILING, percent_closed
from experiments.results.readable_numbers import NOTHING, duration, share

_POINTS: Final = 100
_MS: Final = 1000


def schedules_table(content: Mapping[str, Any]) -> FittedTable:
    """Return a row per policy, one for the best schedules and one for the ceiling."""
    table = FittedTable()
    table.add_column("policy", overflow="fold")
    for heading in ("SLO met", "TTFT mean", "gap closed"):
        table.add_column(heading, justify="right")
    for heading in ("best: points more", "best: ms of TTFT"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in content["rows"]:
        itself = row["policy"] in (FOUND, CEILING)
        table.add_row(
            row["policy"],
            share(row["slo_attainment"]),
            duration(row["ttft_mean_s"]),
            percent_closed(row["closed"]),
            NOTHING if itself else _interval(row["met"], _POINTS),
            NOTHING if itself else _interval(row["ttft"], _MS),
        )
    return table


def sentences(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the intervals show of the best schedules against each policy, and what they are."""
    for row in content["rows"]:
        name, met, ttft = row["policy"], row["met"], row["ttft"]
        if name in (FOUND, CEILING) or met["low"] is None:
            continue
        if met["low"] > 0:
            yield f"{name}: the best schedules found meet more, by {_interval(met, _POINTS)} points"
        elif met["high"] < 0:
            yield f"{name}: the best schedules found meet fewer, by {_interval(met, _POINTS)} points"
        elif ttft["high"] < 0:
            yield f"{name}: the best schedules found are faster, by {_interval(ttft, _MS)} ms of mean TTFT"
        else:
            yield f"{name}: no schedule that was found is shown to be better"
    if len(content["replicates"]) < 2:
        yield "one replicate says nothing about others: use --over seed=1:8"
    yield (
        f"all run the batches of {content['batches_of']}. The search simulated {content['evaluations']}"
        " schedules per replicate, in exact order. The best of them are not proved to be the best there are."
    )


def _interval(of: Mapping[str, Any], unit: float) -> str:
    """Return a mean difference with its interval, in 1/`unit`."""
    # Adding 0 to a negative zero makes it a positive one.
    mean, *ends = (
        None if of[key] is None else round(unit * of[key], 1) + 0.0 for key in ("mean", "low", "high")
    )
    return f"{mean:+.1f}" if None in ends else f"{mean:+.1f} [{ends[0]:+.1f}, {ends[1]:+.1f}]"
