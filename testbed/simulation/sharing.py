"""The inner loops of the fluid network, compiled: who shares what, and when who is through.

Plain functions over tables, one row per port, stream or hop (a stream on a port). Port lists are
doubly linked by level, ends are a binary heap of streams, so that what an event costs follows from
what it touches and not from what there is. `testbed.simulation.network` holds the tables and says
what the numbers mean.

All of it stands in this one file because numba's cache goes by file: a function that calls a compiled one of
another file would not be compiled again when that one changes.
"""

import math
from typing import Annotated, Any, Protocol, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
from numba import config, njit

LEVELS = 8
CLEAN = LEVELS
NONE = -1
NEVER = np.iinfo(np.int64).max

_SLACK_NS = 1e-6  # a byte count that rounding left a hair above zero does not cost a nanosecond
_FOREVER_NS = 9e17  # 28 years; a clock of 64 bits ends after 292
_FULL = 1e-10  # the share of a port below which nothing is left of it: 5 B/s of 400 Gb/s
_SAME = 1e-13  # rates that differ by less, relatively, leave the levels below as they are

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
ByLevel = (LEVELS,)
"""The shape of a cell that has a number for every level."""


class Ports(Protocol):
    """`used[p, l]` is the rate of all streams of level l on port p, `sent[p, l]` their bytes so far."""

    capacity: Floats
    used: Annotated[Floats, ByLevel]
    sent: Annotated[Floats, ByLevel]
    first_hop: Annotated[Longs, ByLevel]  # head of the list of the level's hops
    spare: Floats
    weight: Floats  # of the streams not settled yet
    waiting: Longs  # how many these are
    seen: Longs
    dirty: Longs  # the first level that is to be shared anew; CLEAN: none


class Streams(Protocol):
    """`left` bytes as of `since_ns`, at `rate` since then; `hops` of them from `first_hop` on."""

    left: Floats
    rate: Floats
    cap: Floats  # inf: none
    order: Floats
    since_ns: Longs
    end_ns: Longs
    serial: Longs
    level: Longs
    first_hop: Longs
    hops: Longs
    heap_place: Longs
    seen: Longs
    fresh: Floats  # the rate that is being worked out; below 0: not settled yet


class Hops(Protocol):
    port: Longs
    stream: Longs
    weight: Floats
    following: Longs
    previous: Longs


class Scratch(Protocol):
    """Lists side by side, each as long as there are ports or streams; a row means nothing across them.

    `counts` are of what EPOCH, HEAP, DIRTY, WORKED_OUT, SETTLINGS and SERIAL say. `fullest[0]` is the most
    that any port was ever asked to carry, over its capacity.
    """

    counts: Longs
    fullest: Floats
    heap: Longs  # streams by end
    dirty: Longs  # ports
    queue: Longs  # ports
    affected: Longs  # streams
    shares: Floats  # a heap of ports by the share they leave
    share_ports: Longs


EPOCH, HEAP, DIRTY, WORKED_OUT, SETTLINGS, SERIAL = range(6)
ADDED = 6  # cells of an added stream before its ports
MOVED = 4  # cells of a moved one


def make_table(columns: type[Ports | Streams | Hops | Scratch], rows: int) -> Any:
    """All zero. An array of records: a call into compiled code costs 0.2 us for each of them, and would
    cost 15 us for a column at a time. Compiled code reads `table.column[row]`, Python
    `table["column"][row]`."""
    cells = []
    for name, hint in get_type_hints(columns, include_extras=True).items():
        shape = hint.__metadata__[0] if get_origin(hint) is Annotated else ()
        kind = hint.__origin__ if shape else hint
        cells.append((name, np.float64 if kind == Floats else np.int64, shape))
    table = np.zeros(rows, np.dtype(cells))
    # Uncompiled the loops are Python too; a call with this view of it would cost compiled code 4 us.
    uncompiled: bool = getattr(config, "DISABLE_JIT")  # noqa: B009 - numba declares its settings nowhere
    return table.view(np.recarray) if uncompiled else table


def _compiled(function: Any) -> Any:
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package nor the home can be written to: compile in every process
        return njit(nogil=True)(function)


# --- ends ---------------------------------------------------------------------------------------


@_compiled
def _sooner(streams: Streams, a: int, b: int) -> bool:
    if streams.end_ns[a] != streams.end_ns[b]:
        return bool(streams.end_ns[a] < streams.end_ns[b])
    return bool(streams.serial[a] < streams.serial[b])


@_compiled
def _rise(streams: Streams, heap: Longs, place: int) -> None:
    stream = heap[place]
    while place > 0:
        above = (place - 1) // 2
        if not _sooner(streams, stream, heap[above]):
            break
        heap[place] = heap[above]
        streams.heap_place[heap[place]] = place
        place = above
    heap[place] = stream
    streams.heap_place[stream] = place


@_compiled
def _sink(streams: Streams, heap: Longs, size: int, place: int) -> None:
    stream = heap[place]
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size and _sooner(streams, heap[below + 1], heap[below]):
            below += 1
        if not _sooner(streams, heap[below], stream):
            break
        heap[place] = heap[below]
        streams.heap_place[heap[place]] = place
        place = below
    heap[place] = stream
    streams.heap_place[stream] = place


@_compiled
def _forget_end(streams: Streams, scratch: Scratch, stream: int) -> None:
    place = streams.heap_place[stream]
    if place == NONE:
        return
    streams.heap_place[stream] = NONE
    scratch.counts[HEAP] -= 1
    size = scratch.counts[HEAP]
    if place == size:
        return
    moved = scratch.heap[size]
    scratch.heap[place] = moved
    streams.heap_place[moved] = place
    _rise(streams, scratch.heap, place)
    _sink(streams, scratch.heap, size, streams.heap_place[moved])


@_compiled
def _foresee(now_ns: int, streams: Streams, scratch: Scratch, stream: int) -> None:
    rate = streams.rate[stream]
    if rate <= 0.0:
        streams.end_ns[stream] = NEVER
        _forget_end(streams, scratch, stream)
        return
    takes_ns = streams.left[stream] / rate - _SLACK_NS
    if takes_ns > _FOREVER_NS:
        streams.end_ns[stream] = NEVER
        _forget_end(streams, scratch, stream)
        return
    streams.end_ns[stream] = now_ns + max(0, math.ceil(takes_ns))
    if streams.heap_place[stream] == NONE:
        place = scratch.counts[HEAP]
        scratch.counts[HEAP] += 1
        scratch.heap[place] = stream
        streams.heap_place[stream] = place
    _rise(streams, scratch.heap, streams.heap_place[stream])
    _sink(streams, scratch.heap, scratch.counts[HEAP], streams.heap_place[stream])


# --- lists --------------------------------------------------------------------------------------


@_compiled
def _link(ports: Ports, streams: Streams, hops: Hops, stream: int) -> None:
    level = streams.level[stream]
    for hop in range(streams.first_hop[stream], streams.first_hop[stream] + streams.hops[stream]):
        port = hops.port[hop]
        head = ports.first_hop[port, level]
        hops.following[hop] = head
        hops.previous[hop] = NONE
        if head != NONE:
            hops.previous[head] = hop
        ports.first_hop[port, level] = hop


@_compiled
def _unlink(ports: Ports, streams: Streams, hops: Hops, stream: int) -> None:
    level = streams.level[stream]
    for hop in range(streams.first_hop[stream], streams.first_hop[stream] + streams.hops[stream]):
        before, after = hops.previous[hop], hops.following[hop]
        if before == NONE:
            ports.first_hop[hops.port[hop], level] = after
        else:
            hops.following[before] = after
        if after != NONE:
            hops.previous[after] = before


@_compiled
def _touch(ports: Ports, streams: Streams, hops: Hops, scratch: Scratch, stream: int, level: int) -> None:
    """The ports of `stream` are to be shared anew from `level` on downwards."""
    for hop in range(streams.first_hop[stream], streams.first_hop[stream] + streams.hops[stream]):
        port = hops.port[hop]
        if ports.dirty[port] == CLEAN:
            scratch.dirty[scratch.counts[DIRTY]] = port
            scratch.counts[DIRTY] += 1
        ports.dirty[port] = min(ports.dirty[port], level)


@_compiled
def _bring_up_to(now_ns: int, ports: Ports, streams: Streams, hops: Hops, stream: int) -> None:
    left = streams.left[stream]
    now_left = max(0.0, left - streams.rate[stream] * (now_ns - streams.since_ns[stream]))
    if now_left != left:
        for hop in range(streams.first_hop[stream], streams.first_hop[stream] + streams.hops[stream]):
            ports.sent[hops.port[hop], streams.level[stream]] += hops.weight[hop] * (left - now_left)
    streams.left[stream] = now_left
    streams.since_ns[stream] = now_ns


# --- sharing ------------------------------------------------------------------------------------


@_compiled
def _push_share(scratch: Scratch, size: int, share: float, port: int) -> int:
    place = size
    while place > 0:
        above = (place - 1) // 2
        if scratch.shares[above] <= share:
            break
        scratch.shares[place] = scratch.shares[above]
        scratch.share_ports[place] = scratch.share_ports[above]
        place = above
    scratch.shares[place] = share
    scratch.share_ports[place] = port
    return size + 1


@_compiled
def _pop_share(scratch: Scratch, size: int) -> int:
    """Take the first off; what was last sinks to its place."""
    size -= 1
    share, port = scratch.shares[size], scratch.share_ports[size]
    place = 0
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size and scratch.shares[below + 1] < scratch.shares[below]:
            below += 1
        if scratch.shares[below] >= share:
            break
        scratch.shares[place] = scratch.shares[below]
        scratch.share_ports[place] = scratch.share_ports[below]
        place = below
    scratch.shares[place] = share
    scratch.share_ports[place] = port
    return size


@_compiled
def _settle_stream(ports: Ports, streams: Streams, hops: Hops, stream: int, rate: float) -> None:
    streams.fresh[stream] = rate
    for hop in range(streams.first_hop[stream], streams.first_hop[stream] + streams.hops[stream]):
        port = hops.port[hop]
        ports.spare[port] -= hops.weight[hop] * rate
        ports.weight[port] -= hops.weight[hop]
        ports.waiting[port] -= 1


@_compiled
def _share(
    ports: Ports, streams: Streams, hops: Hops, scratch: Scratch, group: Longs, level: int, used_ports: Longs
) -> None:
    """Max-min fair rates, into `fresh`, for the streams `group`, which are all of one place.

    Progressive filling, a bottleneck at a time: the port that leaves each of its streams least, or
    the cap of a stream that is lower still, settles them. A stream of weight w on a port takes w
    times its rate there. `used_ports` has room for the ports of the group.
    """
    count = 0
    capped = 0
    for stream in group:
        streams.fresh[stream] = -1.0
        open_ = True
        for hop in range(streams.first_hop[stream], streams.first_hop[stream] + streams.hops[stream]):
            if ports.spare[hops.port[hop]] <= _FULL * ports.capacity[hops.port[hop]]:
                open_ = False
                break
        if not open_:
            streams.fresh[stream] = 0.0
            continue
        if streams.cap[stream] < np.inf:
            capped += 1
        for hop in range(streams.first_hop[stream], streams.first_hop[stream] + streams.hops[stream]):
            port = hops.port[hop]
            if ports.waiting[port] == 0:
                ports.weight[port] = 0.0
                used_ports[count] = port
                count += 1
            ports.waiting[port] += 1
            ports.weight[port] += hops.weight[hop]
    by_cap = np.empty(capped, np.int64)
    if capped:
        capped = 0
        for stream in group:
            if streams.fresh[stream] < 0.0 and streams.cap[stream] < np.inf:
                by_cap[capped] = stream
                capped += 1
        by_cap = by_cap[np.argsort(streams.cap[by_cap], kind="mergesort")]
    next_cap = 0
    size = 0
    for i in range(count):
        port = used_ports[i]
        size = _push_share(scratch, size, ports.spare[port] / ports.weight[port], port)
    while size > 0:
        share, port = scratch.shares[0], scratch.share_ports[0]
        size = _pop_share(scratch, size)
        if ports.waiting[port] == 0:
            continue
        now = max(0.0, ports.spare[port]) / ports.weight[port]
        if now > share:  # streams were settled below their share here: there is more for the others
            size = _push_share(scratch, size, now, port)
            continue
        while next_cap < capped and streams.fresh[by_cap[next_cap]] >= 0.0:
            next_cap += 1
        if next_cap < capped and streams.cap[by_cap[next_cap]] < now:
            stream = by_cap[next_cap]
            next_cap += 1
            size = _push_share(scratch, size, share, port)
            _settle_stream(ports, streams, hops, stream, streams.cap[stream])
            continue
        hop = ports.first_hop[port, level]
        while hop != NONE and ports.waiting[port] > 0:
            stream = hops.stream[hop]
            if streams.fresh[stream] < 0.0:
                _settle_stream(ports, streams, hops, stream, now)
            hop = hops.following[hop]


@_compiled
def _share_level(
    ports: Ports, streams: Streams, hops: Hops, scratch: Scratch, level: int, guarantee: float
) -> int:
    """Work out the streams of `level` that a dirty port can affect; how many they are.

    These are the ones on dirty ports, and those that share a port with them, directly or through others.
    `guarantee` of the port is left for each lower level that has something to send.
    """
    scratch.counts[EPOCH] += 1
    epoch = scratch.counts[EPOCH]
    ports_seen = 0
    for i in range(scratch.counts[DIRTY]):
        port = scratch.dirty[i]
        if ports.dirty[port] > level:
            continue
        if ports.first_hop[port, level] == NONE:
            ports.used[port, level] = 0.0
        else:
            ports.seen[port] = epoch
            scratch.queue[ports_seen] = port
            ports_seen += 1
    affected = 0
    done = 0
    ordered = False
    while done < ports_seen:
        port = scratch.queue[done]
        done += 1
        spare = ports.capacity[port]
        for above in range(level):
            spare -= ports.used[port, above]
        if guarantee > 0.0:
            for below in range(level + 1, LEVELS):
                if ports.first_hop[port, below] != NONE:
                    spare -= guarantee * ports.capacity[port]
        ports.spare[port] = spare
        ports.waiting[port] = 0
        hop = ports.first_hop[port, level]
        while hop != NONE:
            stream = hops.stream[hop]
            if streams.seen[stream] != epoch:
                streams.seen[stream] = epoch
                scratch.affected[affected] = stream
                if streams.order[stream] != streams.order[scratch.affected[0]]:
                    ordered = True
                affected += 1
                first = streams.first_hop[stream]
                for other in range(first, first + streams.hops[stream]):
                    if ports.seen[hops.port[other]] != epoch:
                        ports.seen[hops.port[other]] = epoch
                        scratch.queue[ports_seen] = hops.port[other]
                        ports_seen += 1
            hop = hops.following[hop]
    if affected == 0:
        return 0
    room = np.empty(ports_seen, np.int64)
    group = scratch.affected[:affected]
    if ordered:
        # Those of a later order must not look open to an earlier one that waits on the same port.
        for stream in group:
            streams.fresh[stream] = 0.0
        by_order = group[np.argsort(streams.order[group], kind="mergesort")]
        begin = 0
        for end in range(1, affected + 1):
            if end == affected or streams.order[by_order[end]] != streams.order[by_order[begin]]:
                _share(ports, streams, hops, scratch, by_order[begin:end], level, room)
                begin = end
    else:
        _share(ports, streams, hops, scratch, group, level, room)
    for i in range(ports_seen):
        ports.used[scratch.queue[i], level] = 0.0
    for stream in group:
        for hop in range(streams.first_hop[stream], streams.first_hop[stream] + streams.hops[stream]):
            ports.used[hops.port[hop], level] += hops.weight[hop] * streams.fresh[stream]
    return affected


@_compiled
def take_in(
    now_ns: int,
    ports: Ports,
    streams: Streams,
    hops: Hops,
    scratch: Scratch,
    added: Floats,
    moved: Floats,
) -> None:
    """Put what was added and moved in its place; `settle` works out the rates.

    `added` is row after row: the number of a stream whose `first_hop` and `hops` are set, its size, level,
    order and cap, whether it has weights, then its ports, then its weights if it has them (else they are
    1). `moved` too: a stream, its new level, order and cap.
    """
    at = 0
    while at < len(added):
        stream, level = int(added[at]), int(added[at + 2])
        first, count = streams.first_hop[stream], streams.hops[stream]
        weighted = added[at + 5] > 0.0
        streams.left[stream], streams.since_ns[stream], streams.rate[stream] = added[at + 1], now_ns, 0.0
        streams.level[stream] = level
        streams.order[stream], streams.cap[stream] = added[at + 3], added[at + 4]
        at += ADDED
        for hop in range(first, first + count):
            hops.port[hop], hops.stream[hop] = int(added[at]), stream
            hops.weight[hop] = added[at + count] if weighted else 1.0
            at += 1
        if weighted:
            at += count
        streams.serial[stream] = scratch.counts[SERIAL]
        scratch.counts[SERIAL] += 1
        streams.heap_place[stream] = NONE
        _link(ports, streams, hops, stream)
        _touch(ports, streams, hops, scratch, stream, level)
    for at in range(0, len(moved), MOVED):
        stream, level = int(moved[at]), int(moved[at + 1])
        _bring_up_to(now_ns, ports, streams, hops, stream)
        _touch(ports, streams, hops, scratch, stream, streams.level[stream])
        _unlink(ports, streams, hops, stream)
        streams.level[stream] = level
        streams.order[stream], streams.cap[stream] = moved[at + 2], moved[at + 3]
        _link(ports, streams, hops, stream)
        _touch(ports, streams, hops, scratch, stream, level)


@_compiled
def settle(
    now_ns: int,
    ports: Ports,
    streams: Streams,
    hops: Hops,
    scratch: Scratch,
    guarantee: float,
    added: Floats,
    moved: Floats,
) -> int:
    """Work out the rates that hold from `now_ns` on where something has changed or is added or moved.

    Returns when the next stream ends, or NEVER.
    """
    take_in(now_ns, ports, streams, hops, scratch, added, moved)
    if guarantee > 0.0:  # a level that comes or goes changes those above it too
        for i in range(scratch.counts[DIRTY]):
            ports.dirty[scratch.dirty[i]] = 0
    scratch.counts[SETTLINGS] += scratch.counts[DIRTY] > 0
    for level in range(LEVELS):
        affected = _share_level(ports, streams, hops, scratch, level, guarantee)
        scratch.counts[WORKED_OUT] += affected
        for i in range(affected):
            stream = scratch.affected[i]
            before, after = streams.rate[stream], streams.fresh[stream]
            if before == after:
                continue
            _bring_up_to(now_ns, ports, streams, hops, stream)
            streams.rate[stream] = after
            _foresee(now_ns, streams, scratch, stream)
            if level + 1 < LEVELS and abs(after - before) > _SAME * max(after, before):
                _touch(ports, streams, hops, scratch, stream, level + 1)
    for i in range(scratch.counts[DIRTY]):
        port = scratch.dirty[i]
        ports.dirty[port] = CLEAN
        used = 0.0
        for level in range(LEVELS):
            used += ports.used[port, level]
        scratch.fullest[0] = max(scratch.fullest[0], used / ports.capacity[port])
    scratch.counts[DIRTY] = 0
    return NEVER if scratch.counts[HEAP] == 0 else int(streams.end_ns[scratch.heap[0]])


@_compiled
def take_finished(
    now_ns: int, ports: Ports, streams: Streams, hops: Hops, scratch: Scratch, out: Longs
) -> int:
    """Remove the streams that have ended by `now_ns`; they are put into `out` in order of addition, their
    number returned."""
    count = 0
    while scratch.counts[HEAP] > 0 and streams.end_ns[scratch.heap[0]] <= now_ns:
        stream = scratch.heap[0]
        _forget_end(streams, scratch, stream)
        for hop in range(streams.first_hop[stream], streams.first_hop[stream] + streams.hops[stream]):
            ports.sent[hops.port[hop], streams.level[stream]] += hops.weight[hop] * streams.left[stream]
        streams.left[stream] = 0.0
        streams.rate[stream] = 0.0
        _unlink(ports, streams, hops, stream)
        _touch(ports, streams, hops, scratch, stream, streams.level[stream])
        streams.level[stream] = NONE  # the row is free
        place = count
        while place > 0 and streams.serial[out[place - 1]] > streams.serial[stream]:
            out[place] = out[place - 1]
            place -= 1
        out[place] = stream
        count += 1
    return count


@_compiled
def bring_all_up_to(now_ns: int, ports: Ports, streams: Streams, hops: Hops, scratch: Scratch) -> None:
    """Count what every stream that moves has sent by `now_ns`."""
    for i in range(scratch.counts[HEAP]):
        _bring_up_to(now_ns, ports, streams, hops, scratch.heap[i])


@_compiled
def bytes_left(now_ns: int, ports: Ports, streams: Streams, hops: Hops, port: int) -> float:
    """What the streams on `port` still have to send over it."""
    total = 0.0
    for level in range(LEVELS):
        hop = ports.first_hop[port, level]
        while hop != NONE:
            stream = hops.stream[hop]
            gone = streams.rate[stream] * (now_ns - streams.since_ns[stream])
            total += hops.weight[hop] * max(0.0, streams.left[stream] - gone)
            hop = hops.following[hop]
    return total


@_compiled
def held_back(ports: Ports, streams: Streams, hops: Hops, rows: int, tolerance: float) -> int:
    """How many streams are slower than strict priority and max-min fairness would have them.

    Of every stream, unless it moves at its cap, one port must be full with streams of its place or
    smaller ones, and of its own place none there may be faster (the bottleneck condition: Bertsekas and
    Gallager, Data Networks, 6.5.2). Worked out from the lists, not from what sharing keeps of them.
    """
    slow = 0
    for stream in range(rows):
        if streams.level[stream] < 0:
            continue
        if streams.rate[stream] >= streams.cap[stream] * (1 - tolerance):
            continue
        bottleneck = False
        for own in range(streams.first_hop[stream], streams.first_hop[stream] + streams.hops[stream]):
            port = hops.port[own]
            used = 0.0
            fastest = 0.0
            for level in range(streams.level[stream] + 1):
                hop = ports.first_hop[port, level]
                while hop != NONE:
                    other = hops.stream[hop]
                    same = level == streams.level[stream]
                    if not same or streams.order[other] <= streams.order[stream]:
                        used += hops.weight[hop] * streams.rate[other]
                        if same and streams.order[other] == streams.order[stream]:
                            fastest = max(fastest, streams.rate[other])
                    hop = hops.following[hop]
            full = used >= ports.capacity[port] * (1 - tolerance)
            if full and streams.rate[stream] >= fastest * (1 - tolerance) - tolerance * ports.capacity[port]:
                bottleneck = True
                break
        if not bottleneck:
            slow += 1
    return slow
