"""The curves of a report, in `<policy>/distributions.json`: a few hundred points, however long the run was.

They are made from all flows when the results are written, so a report can draw them without reading flows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from controller.flow import SERVING_STAGES
from experiments.atomic_file import write_text
from experiments.named_file import named_bytes
from experiments.results.measures import ExposedS1, Measures

POINTS: Final = 400


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """An empirical distribution of `count` values.

    `values` are those at `POINTS` evenly spaced ranks, in order, or all if there are no more. The smallest
    and the largest value are always among them.
    """

    count: int
    values: list[float]

    def shares(self, total: int | None = None) -> npt.NDArray[np.float64]:
        """Return the share of values that are at most as large as each of `values`.

        It is relative to `total`, by default to `count`.
        """
        return (kept_ranks(self.count) + 1) / (total or self.count)


def curve(values: Sequence[float] | npt.NDArray[np.generic]) -> Curve:
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return Curve(count=len(ordered), values=ordered[kept_ranks(len(ordered))].tolist())


def kept_ranks(count: int) -> npt.NDArray[np.int64]:
    """Return the ranks to keep of `count` values."""
    if count <= POINTS:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, POINTS).astype(np.int64))


class Distributions(msgspec.Struct, frozen=True, kw_only=True):
    """The measures of a run as curves, in model nanoseconds. `stage_ns` is by stage: "S1", "S2", "S3".

    `exposed_s1_ns` is the mean over batches, by layer.
    """

    stage_ns: dict[str, Curve]
    collective_ns: Curve
    coflow_ns: Curve
    p2d_slack_ns: Curve
    exposed_s1_ns: dict[int, float]


def distributions(measures: Measures) -> Distributions:
    flows = measures.flows
    return Distributions(
        stage_ns={stage.value: curve(flows.stage_ns[stage]) for stage in SERVING_STAGES},
        collective_ns=curve(flows.collective_ns),
        coflow_ns=curve(list(flows.coflow_ns.values())),
        p2d_slack_ns=curve(flows.p2d_slack_ns),
        exposed_s1_ns=_mean_by_layer(measures.exposed_s1),
    )


def _mean_by_layer(exposed: ExposedS1) -> dict[int, float]:
    layers = np.unique(exposed.layer)
    return {int(layer): float(np.mean(exposed.wait_ns[exposed.layer == layer])) for layer in layers}


_MOST_BYTES: Final = 64 * 2**20


def write_distributions(path: Path, found: Distributions) -> None:
    write_text(path, msgspec.json.encode(found).decode() + "\n")


def read_distributions(path: Path) -> Distributions:
    """Read distributions. Raises `UserError` for a missing file, `msgspec.DecodeError` for a bad one."""
    return msgspec.json.decode(named_bytes(path, most_bytes=_MOST_BYTES), type=Distributions)
