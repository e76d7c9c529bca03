"""Our own format: a CSV file with a link per line, `from,to,gbps`. A link has this rate in each direction.

`h1`, `h2` and so on are servers, and any other name is a switch. The first link of a server is that of its
NIC 0, the second that of its NIC 1, and so on.
"""

import csv
import re
from pathlib import Path

from experiments.errors import UserError
from experiments.topology_formats.network import PARALLEL, Network, add_wire, check_alike
from testbed.topology import Wire

HEADER = ("from", "to", "gbps")
_SERVER = re.compile(r"h([1-9][0-9]{0,4})")
_SWITCH = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,30}")
_MOST_GBPS = 1e5


def read_links(text: str, path: Path) -> Network:
    """Read a file of links. Raises `UserError`, naming the line."""
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    nics: dict[int, list[Wire]] = {}
    switches: dict[str, None] = {}
    between: dict[tuple[str, str], Wire] = {}
    parallel = False
    header = next(rows, [])
    if tuple(word.strip() for word in header) != HEADER:
        raise UserError(f"{path}, line 1: not the header {','.join(HEADER)}")
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        if not row or row[0].startswith("#"):
            continue
        if len(row) != len(HEADER):
            raise UserError(f"{where}: {len(row)} values; a link has {','.join(HEADER)}")
        a, b, bps = row[0].strip(), row[1].strip(), _bps(row[2], where)
        for name in (a, b):
            if not _SERVER.fullmatch(name):
                if not _SWITCH.fullmatch(name):
                    raise UserError(f"{where}: {name!r} is not a name of a server (h1) or a switch (leaf1)")
                switches[name] = None
        server, switch = (a, b) if _SERVER.fullmatch(a) else (b, a)
        found = _SERVER.fullmatch(server)
        if found is None and a != b:
            parallel |= add_wire(between, a, b, bps)
        elif found is not None and switch in switches:
            nics.setdefault(int(found[1]), []).append(Wire(switch=switch, up_bps=bps, down_bps=bps))
        else:
            raise UserError(f"{where}: a link from {a} to {b}; a server is linked to switches only")
    for number in range(1, max(nics, default=0) + 1):
        if number not in nics:
            raise UserError(f"{path}: h{number} has no link; servers are h1 to h{max(nics)}")
    if len(nics) < 2:
        raise UserError(f"{path}: {len(nics)} servers; at least 2 are needed")
    of_servers = [nics[number] for number in sorted(nics)]
    check_alike(of_servers, path)
    return Network(
        nics=tuple(map(tuple, of_servers)),
        switches=tuple(switches),
        between=between,
        notes=(f"{path.name}: {PARALLEL}",) if parallel else (),
    )


def _bps(text: str, where: str) -> int:
    try:
        gbps = float(text)
    except ValueError:
        gbps = 0.0
    if not 1e-3 <= gbps <= _MOST_GBPS:
        raise UserError(f"{where}: {text.strip()!r} is not a rate of 0.001 to {_MOST_GBPS:g} Gb/s")
    return round(gbps * 1e9)
