"""The format of the coflow benchmark (FB2010-1Hr-150-0.txt): one MapReduce shuffle, a coflow, per line.

The first line is `<racks> <coflows>`. It is followed by one line per coflow, sorted by time:

    <id> <arrival, ms> <mappers> <rack of each mapper> <reducers> <rack:MB of each reducer>

Racks are numbered from 0. Each mapper sends a reducer an equal part of the reducer's MB (2**20 bytes each),
in one flow per pair. Source: https://github.com/coflow/coflow-benchmark. The equal parts and the size of a
MB are those of CoflowSim (`CoflowBenchmarkTraceProducer`, `ReduceTask.createFlows`), which reads the same
files.
"""

import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec

from controller.flow import Stage, Transfer
from controller.units import NS_PER_MS
from experiments.errors import UserError
from experiments.trace_formats.formats import COFLOW_HEADER
from experiments.trace_formats.text_file import read_lines
from testbed.job import MicroFlow, Placement

BYTES_PER_MB = 2**20
MAX_MB = 1e9
MAX_MS = 1e9


class ShuffleTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Flows in order of their start, and notes on them."""

    flows: tuple[MicroFlow, ...]
    notes: tuple[str, ...]


class _Shuffle(msgspec.Struct, frozen=True):
    """A line of the trace. `reducers` has the bytes of each rack, which come evenly from `mappers`."""

    name: str
    arrival_ns: int
    mappers: tuple[int, ...]
    reducers: dict[int, int]


def load(
    path: Path, *, placement: Placement, coflows: int | None, skip: int, time_scale: float
) -> ShuffleTrace:
    """Read `coflows` coflows (None: all) of the trace at `path`, after the first `skip`.

    Rack i is server h(i + 1), which has one rank. The first coflow that is taken arrives at 0. A second
    between arrivals takes `time_scale` seconds. Flows inside a rack do not cross the network and are left
    out, and so are empty ones.

    Raises `UserError` for a malformed file (every line is checked, including those that are not taken), for
    more racks than servers, for too few coflows, and if no flow is left.
    """
    lines = read_lines(path)
    racks, announced = _header(lines[0], path)
    servers = len(placement.ranks)
    if racks > servers:
        raise UserError(
            f"{path}, line 1: {racks} racks, and a rack is a server: the topology has {servers} "
            "(topology.servers)"
        )
    shuffles = list(_shuffles(lines, path, racks))
    if len(shuffles) != announced:
        raise UserError(
            f"{path}, line 1: {announced} coflows are announced, but the file has {len(shuffles)}"
        )
    taken = _taken(shuffles, path, coflows, skip)
    flows = tuple(
        flow
        for shuffle in taken
        for flow in _flows(shuffle, placement, round((shuffle.arrival_ns - taken[0].arrival_ns) * time_scale))
    )
    if not flows:
        raise UserError(f"{path}: nothing to send: no flow of the coflows taken goes to another rack")
    return ShuffleTrace(flows=flows, notes=_notes(taken, flows))


def _taken(shuffles: list[_Shuffle], path: Path, coflows: int | None, skip: int) -> list[_Shuffle]:
    there = len(shuffles)
    if skip >= there:
        raise UserError(f"{path}: workload.skip leaves out {skip} coflows, but the file has {there}")
    if coflows is None:
        return shuffles[skip:]
    if skip + coflows > there:
        after = f" after skipping {skip}" if skip else ""
        raise UserError(f"{path}: workload.coflows asks for {coflows}{after}, but the file has {there}")
    return shuffles[skip : skip + coflows]


def _notes(taken: list[_Shuffle], flows: tuple[MicroFlow, ...]) -> tuple[str, ...]:
    sent = sum(flow.transfer.size_bytes for flow in flows)
    inside = sum(sum(shuffle.reducers.values()) for shuffle in taken) - sent
    left = len({flow.transfer.coflow for flow in flows})
    notes = [f"coflows: {left}, flows: {len(flows)}, between racks: {sent / 1e9:.4g} GB"]
    if inside:
        notes.append(f"left out: {inside / 1e9:.4g} GB that stay inside a rack")
    if left < len(taken):
        notes.append(f"left out: coflows without anything for another rack: {len(taken) - left}")
    return tuple(notes)


def _flows(shuffle: _Shuffle, placement: Placement, start_ns: int) -> Iterator[MicroFlow]:
    ranks = placement.ranks
    for reducer, size_bytes in shuffle.reducers.items():
        # The remainder is distributed over the first mappers, a byte each, so that no byte is lost.
        each, over = divmod(size_bytes, len(shuffle.mappers))
        for place, mapper in enumerate(shuffle.mappers):
            share = each + (place < over)
            if share == 0 or mapper == reducer:
                continue
            yield MicroFlow(
                transfer=Transfer(
                    id=f"{shuffle.name}.{ranks[mapper].server}-{ranks[reducer].server}",
                    stage=Stage.P2D,
                    src=ranks[mapper].rank,
                    dst=ranks[reducer].rank,
                    size_bytes=share,
                    coflow=shuffle.name,
                ),
                start_ns=start_ns,
            )


def _header(line: str, path: Path) -> tuple[int, int]:
    match = COFLOW_HEADER.fullmatch(line)
    if match is None:
        raise UserError(f"{path}, line 1: {_shown(line)}; expected two numbers, racks and coflows")
    return int(match[1]), int(match[2])


def _shuffles(lines: list[str], path: Path, racks: int) -> Iterator[_Shuffle]:
    names: set[str] = set()
    latest_ns = 0
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        shuffle = _shuffle(line.split(), where, racks)
        if shuffle.arrival_ns < latest_ns:
            name = shlex.quote(str(path))
            raise UserError(
                f"{where}: arrives before the line above; a trace is sorted by time. To sort it: "
                f"(head -n 1 {name}; tail -n +2 {name} | sort -s -n -k 2,2) > SORTED"
            )
        if shuffle.name in names:
            raise UserError(f"{where}: coflow {shuffle.name[1:]} is listed twice")
        names.add(shuffle.name)
        latest_ns = shuffle.arrival_ns
        yield shuffle


def _shuffle(cells: list[str], where: str, racks: int) -> _Shuffle:
    # Two counts in the line determine its length, so the length is checked up to a count before using it.
    _long_enough(cells, 3, where)
    name = f"c{_whole('coflow id', cells[0], where, low=0, high=10**9)}"
    arrival_ns = round(_number("arrival", cells[1], where, high=MAX_MS) * NS_PER_MS)
    mappers = _whole("number of mappers", cells[2], where, low=1, high=racks)
    _long_enough(cells, 4 + mappers, where)
    reducers = _whole("number of reducers", cells[3 + mappers], where, low=1, high=racks)
    _long_enough(cells, 4 + mappers + reducers, where)
    if len(cells) > 4 + mappers + reducers:
        raise UserError(
            f"{where}: {len(cells)} values, but {mappers} mappers and {reducers} reducers make "
            f"{4 + mappers + reducers}"
        )
    senders: dict[int, None] = {}
    for cell in cells[3 : 3 + mappers]:
        rack = _whole("rack of a mapper", cell, where, low=0, high=racks - 1)
        if rack in senders:
            raise UserError(f"{where}: rack {rack} is named twice among the mappers")
        senders[rack] = None
    receivers: dict[int, int] = {}
    for cell in cells[4 + mappers :]:
        rack_text, colon, size = cell.partition(":")
        if not colon:
            raise UserError(f"{where}: reducer {_shown(cell)}; expected rack:MB")
        rack = _whole("rack of a reducer", rack_text, where, low=0, high=racks - 1)
        if rack in receivers:
            raise UserError(f"{where}: rack {rack} is named twice among the reducers")
        receivers[rack] = round(_number("MB of a reducer", size, where, high=MAX_MB) * BYTES_PER_MB)
    return _Shuffle(name, arrival_ns, tuple(senders), receivers)


def _long_enough(cells: list[str], wanted: int, where: str) -> None:
    if len(cells) < wanted:
        raise UserError(f"{where}: ends after {len(cells)} values; at least {wanted} were expected")


def _whole(name: str, text: str, where: str, *, low: int, high: int) -> int:
    if not re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        raise UserError(f"{where}: {name} is {_shown(text)}, not a whole number")
    value = int(text)
    if not low <= value <= high:
        raise UserError(f"{where}: {name} is {value}; allowed is {low} .. {high}")
    return value


def _number(name: str, text: str, where: str, *, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{where}: {name} is {_shown(text)}, not a number") from None
    if not (math.isfinite(value) and 0 <= value <= high):
        raise UserError(f"{where}: {name} is {value:g}; allowed is 0 .. {high:g}")
    return value


def _shown(text: str) -> str:
    """Return a piece of the file, short enough for a message."""
    return repr(text) if len(text) <= 40 else repr(text[:40]) + "..."
