"""The compiled inner loops of the fluid network: how streams share ports, and when they end.

These are plain functions over tables with a row per port, stream or hop (a stream on a port). Each port
has a doubly linked list of hops for each level, and the ends of streams are in a binary heap. So the
cost of an event depends on what it touches, not on how many streams there are.
`testbed.simulation.links.network` holds the tables, and `testbed.simulation.links.link_tables` describes
them.

Functions that call each other are in one file, because numba caches by file: a function would not be
compiled again when a function that it calls in another file changes.
"""

import math

import numpy as np

from testbed.simulation.links.link_tables import (
    LEVELS,
    Floats,
    Hops,
    Longs,
    Ports,
    Scratch,
    Streams,
    compiled,
)

CLEAN = LEVELS
NONE = -1
NEVER = np.iinfo(np.int64).max

_SLACK_NS = 1e-6  # bytes that only rounding has left over do not take a nanosecond more
_FOREVER_NS = 9e17  # 28 years; a 64-bit clock in nanoseconds ends after 292
_FULL = 1e-10  # a port with a smaller share of its rate left counts as full: 5 B/s of 400 Gb/s
_SAME = 1e-13  # a smaller relative change of a rate leaves the levels below as they are

EPOCH, HEAP, DIRTY, WORKED_OUT, SETTLINGS, SERIAL = range(6)
ADDED = 6  # cells of an added stream before its ports
MOVED = 4  # cells of a moved stream


# --- ends ---------------------------------------------------------------------------------------


@compiled
def _sooner(streams: Streams, a: int, b: int) -> bool:
    if streams.end_ns[a] != streams.end_ns[b]:
        return bool(streams.end_ns[a] < streams.end_ns[b])
    return bool(streams.serial[a] < streams.serial[b])


@compiled
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


@compiled
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


@compiled
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


@compiled
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


@compiled
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


@compiled
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


@compiled
def _touch(ports: Ports, streams: Streams, hops: Hops, scratch: Scratch, stream: int, level: int) -> None:
    """Mark the ports of `stream`: `level` and all levels below it are to be shared anew."""
    for hop in range(streams.first_hop[stream], streams.first_hop[stream] + streams.hops[stream]):
        port = hops.port[hop]
        if ports.dirty[port] == CLEAN:
            scratch.dirty[scratch.counts[DIRTY]] = port
            scratch.counts[DIRTY] += 1
        ports.dirty[port] = min(ports.dirty[port], level)


@compiled
def _bring_up_to(now_ns: int, ports: Ports, streams: Streams, hops: Hops, stream: int) -> None:
    left = streams.left[stream]
    now_left = max(0.0, left - streams.rate[stream] * (now_ns - streams.since_ns[stream]))
    if now_left != left:
        for hop in range(streams.first_hop[stream], streams.first_hop[stream] + streams.hops[stream]):
            ports.sent[hops.port[hop], streams.level[stream]] += hops.weight[hop] * (left - now_left)
    streams.left[stream] = now_left
    streams.since_ns[stream] = now_ns


# --- sharing ------------------------------------------------------------------------------------


@compiled
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


@compiled
def _pop_share(scratch: Scratch, size: int) -> int:
    """Remove the first entry; the last one sinks to its place."""
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


@compiled
def _settle_stream(ports: Ports, streams: Streams, hops: Hops, stream: int, rate: float) -> None:
    streams.fresh[stream] = rate
    for hop in range(streams.first_hop[stream], streams.first_hop[stream] + streams.hops[stream]):
        port = hops.port[hop]
        ports.spare[port] -= hops.weight[hop] * rate
        ports.weight[port] -= hops.weight[hop]
        ports.waiting[port] -= 1


@compiled
def _share(
    ports: Ports, streams: Streams, hops: Hops, scratch: Scratch, group: Longs, level: int, used_ports: Longs
) -> None:
    """Write max-min fair rates to `fresh` for the streams in `group`, which all have the same place.

    This is progressive filling, one bottleneck at a time. The port that leaves the least to each of its
    streams settles them, unless a stream has a lower cap, which then settles that stream. A stream of
    weight w on a port takes w times its rate there. `used_ports` has room for the ports of the group.
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
        if now > share:  # some streams settled below their share here, so there is more for the others
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


@compiled
def _share_level(
    ports: Ports, streams: Streams, hops: Hops, scratch: Scratch, level: int, guarantee: float
) -> int:
    """Work out rates for the streams of `level` that a dirty port can affect, and return their number.

    These are the streams on dirty ports, and those that share a port with them, directly or through others.
    The share `guarantee` of a port is left for each lower level that has something to send.
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
        # A port's streams of later orders must not look unsettled while an earlier order is worked out.
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


@compiled
def take_in(
    now_ns: int,
    ports: Ports,
    streams: Streams,
    hops: Hops,
    scratch: Scratch,
    added: Floats,
    moved: Floats,
) -> None:
    """Enter added and moved streams into the tables; `settle` works out the rates.

    `added` has rows one after another: the number of a stream whose `first_hop` and `hops` are set, its
    size, level, order and cap, whether it has weights, its ports, and its weights if it has any
    (otherwise they are 1). `moved` has a stream, its new level, order and cap in each row.
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


@compiled
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
    """Work out the rates from `now_ns` on, where streams have been added, moved or removed.

    Returns when the next stream ends, or NEVER.
    """
    take_in(now_ns, ports, streams, hops, scratch, added, moved)
    if guarantee > 0.0:  # a level that starts or stops sending changes those above it too
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


@compiled
def take_finished(
    now_ns: int, ports: Ports, streams: Streams, hops: Hops, scratch: Scratch, out: Longs
) -> int:
    """Remove the streams that have ended by `now_ns`. Write them to `out` in order of addition, and return
    their number."""
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


@compiled
def bring_all_up_to(now_ns: int, ports: Ports, streams: Streams, hops: Hops, scratch: Scratch) -> None:
    """Bring the counts of bytes left and sent of every moving stream up to `now_ns`."""
    for i in range(scratch.counts[HEAP]):
        _bring_up_to(now_ns, ports, streams, hops, scratch.heap[i])
