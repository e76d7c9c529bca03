"""Compiled questions about the tables of the fluid network. They change nothing.

A list of hops ends with a negative number. Compiled functions of this file call none of another file,
because numba would not notice a change there (`testbed.simulation.links.sharing`).
"""

from testbed.simulation.links.link_tables import LEVELS, Hops, Ports, Streams, compiled


@compiled
def bytes_left(now_ns: int, ports: Ports, streams: Streams, hops: Hops, port: int) -> float:
    """Bytes that the streams on `port` have left to send over it."""
    total = 0.0
    for level in range(LEVELS):
        hop = ports.first_hop[port, level]
        while hop >= 0:
            stream = hops.stream[hop]
            gone = streams.rate[stream] * (now_ns - streams.since_ns[stream])
            total += hops.weight[hop] * max(0.0, streams.left[stream] - gone)
            hop = hops.following[hop]
    return total


@compiled
def fullest(ports: Ports, streams: Streams, hops: Hops) -> float:
    """The largest share of its capacity that any port carries now, added up from its streams' rates."""
    most = 0.0
    for port in range(len(ports.capacity)):
        used = 0.0
        for level in range(LEVELS):
            hop = ports.first_hop[port, level]
            while hop >= 0:
                used += hops.weight[hop] * streams.rate[hops.stream[hop]]
                hop = hops.following[hop]
        most = max(most, used / ports.capacity[port])
    return most


@compiled
def held_back(ports: Ports, streams: Streams, hops: Hops, rows: int, tolerance: float) -> int:
    """How many streams are slower than strict priority and max-min fairness would have them.

    Every stream that moves below its cap must have a bottleneck: a port that is full with streams of the
    same or smaller places, on which no stream of the same place is faster (Bertsekas and Gallager, Data
    Networks, 6.5.2). This is worked out from the lists of streams, not from what the sharing algorithm
    keeps.
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
                while hop >= 0:
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
