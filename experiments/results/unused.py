"""What a run left unused, in sentences: units, decode workers, servers and NICs.

A unit without requests or a NIC without traffic changes what a mean says, and no other number shows it.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

import pyarrow as pa

from testbed import columns
from testbed.job import Placement
from testbed.record import RunRecord
from testbed.topology import Topology

_NAMED = 8
"""The most parts that a sentence names."""


def unused_parts(records: Sequence[RunRecord], placement: Placement, topology: Topology) -> list[str]:
    """Return a sentence for each kind of part that no request or flow used, under which policies.

    A server without ranks is named as that, and not again with its NICs.
    """
    placed = {spec.server for spec in placement.ranks}
    found = _told("no rank is on server", [s for s in topology.servers if s not in placed], "")
    shape = topology.shape
    nics = {
        shape.nic(server, number): server
        for server in topology.servers
        if server in placed
        for number in range(shape.nics)
    }

    def of(record: RunRecord) -> Iterable[tuple[str, Sequence[str] | Sequence[int]]]:
        if record.requests:
            units = {row.unit for row in record.requests}
            yield "no request was prefilled on unit", [unit for unit in placement.units if unit not in units]
            workers = {row.decode_rank for row in record.requests}
            yield (
                "no request had decode worker",
                [r for r, *_ in placement.decode_workers if r not in workers],
            )
        used = {end for port in _ports(record) for end in _ends(topology, port)}
        yield "no flow crossed NIC", [nic for nic in nics if nic not in used]

    under: dict[tuple[str, tuple[str | int, ...]], list[str]] = {}
    for record in records:
        for what, parts in of(record):
            if parts:
                under.setdefault((what, tuple(parts)), []).append(record.policy)
    for (what, which), policies in under.items():
        found += _told(what, which, "" if len(policies) == len(records) else f" under {', '.join(policies)}")
    return found


def _told(what: str, parts: Sequence[str | int], under: str) -> list[str]:
    if not parts:
        return []
    named = ", ".join(str(part) for part in islice(parts, _NAMED))
    more = f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return [f"{what} {named}{more}{under}"]


def _ports(record: RunRecord) -> set[str]:
    """The ports that flows of the run crossed."""
    ports = pa.array([], pa.string())
    for batch in columns.batches_of(record.flows, ["path"]):
        paths = batch.column("path")
        crossed = paths.dictionary.take(paths.indices.unique())
        ports = pa.concat_arrays([ports, crossed.flatten().unique()]).unique()
    return set(ports.to_pylist())


def _ends(topology: Topology, port: str) -> tuple[str, str]:
    link = topology.link(port)
    return link.src, link.dst
