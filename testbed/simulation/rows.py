"""The rows that the compiled core leaves behind, block by block, as the columns of a record."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from controller.flow import Decision, Stage
from testbed.arrow_rows import Coded, Texts
from testbed.columns import ColumnSpool
from testbed.job import Job
from testbed.record import FlowRow, SpanRow
from testbed.simulation._core import Core
from workers.spans import SpanKind

Block = dict[str, Any]
"""Columns by name: arrays, and for strings a pair of the end of each and all bytes."""

_STAGES = [stage.value for stage in Stage]
_KINDS = [kind.value for kind in SpanKind]
_ABSENT = -1
_NO_TIME = np.iinfo(np.int64).min


class Rows:
    """Takes the blocks of the core in. Cells without a value are -1, or the smallest number for a time."""

    def __init__(self, job: Job) -> None:
        self.flows: ColumnSpool[FlowRow] = ColumnSpool(FlowRow)
        self.decisions: ColumnSpool[Decision] = ColumnSpool(Decision)
        self.spans: ColumnSpool[SpanRow] = ColumnSpool(SpanRow)
        self._links = [link.id for link in job.topology.links]
        servers = [rank.server for rank in job.placement.ranks]
        self._servers = list(dict.fromkeys(servers))
        number = {name: i for i, name in enumerate(self._servers)}
        # The last entry is for the destination of a share, which has none: rank -1.
        self._server_of = np.array([*(number[name] for name in servers), _ABSENT])
        self._names: list[str] = []
        self._paths: list[tuple[str, ...]] = []
        self._core: Core

    def serve(self, core: Core) -> None:
        """Take the names and paths of `core` from now on."""
        self._core = core

    def flows_in(self, block: Block) -> None:
        self._learn()
        src, dst = block["src"], block["dst"]
        has_coflow = block.pop("has_coflow")
        batch, request, layer = block["batch"], block["request"], block["layer"]
        self.flows.append_block(
            {
                **block,
                "id": _strings(block["id"], distinct=True),
                "stage": Coded(block["stage"], _STAGES),
                "src_server": Coded(self._server_of[src], self._servers),
                "dst_server": Coded(self._server_of[dst], self._servers),
                "batch": Coded(batch, self._names),
                "request": _optional(request, _NO_TIME),
                "layer": _optional(layer, _ABSENT),
                "coflow": _strings(block["coflow"], has_coflow),
                "deadline_ns": _optional(block["deadline_ns"], _NO_TIME),
                "path": Coded(block["path"], self._paths),
                "verified": np.ma.array(np.zeros(len(src), np.bool_), mask=True),
            }
        )

    def decisions_in(self, block: Block) -> None:
        self.decisions.append_block(
            {
                **block,
                "flow": _strings(block["flow"]),
                "level_from": _optional(block["level_from"], _ABSENT),
                "reason": _strings(block["reason"]),
            }
        )

    def spans_in(self, block: Block) -> None:
        self._learn()
        self.spans.append_block(
            {
                **block,
                "kind": Coded(block["kind"], _KINDS),
                "label": Coded(block["label"], self._names),
                "batch": Coded(block["batch"], self._names),
                "layer": _optional(block["layer"], _ABSENT),
            }
        )

    def _learn(self) -> None:
        """Learn the names and paths that are new since the last block."""
        self._names += self._core.names(len(self._names))
        for path in self._core.paths(len(self._paths)):
            self._paths.append(tuple(self._links[link] for link in path))


def _strings(column: Any, there: npt.NDArray[np.int8] | None = None, *, distinct: bool = False) -> Texts:
    """A column of strings from the ends of each and all bytes. Those that are not `there` are None."""
    ends, text = column
    validity = None if there is None else pa.py_buffer(np.packbits(there, bitorder="little"))
    array = pa.StringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(text), validity)
    return Texts(array, distinct)


def _optional(column: npt.NDArray[Any], absent: int) -> npt.NDArray[Any]:
    return np.ma.masked_equal(column, absent, copy=False)
