"""A matrix of bandwidths between servers: row i, column j is the rate from server i to server j, in Gb/s.

A matrix says what one pair gets, and nothing about what pairs share. So each pair has a link of its own, and
a server's NIC is as fast as the fastest of them. Each server has a switch, `x1` for `h1`, between the two.
"""

import re
from pathlib import Path

from experiments.errors import UserError
from experiments.topology_formats.network import Network
from testbed.topology import Wire

_MOST_SERVERS = 256
_MOST_GBPS = 1e5


def read_matrix(text: str, path: Path) -> Network:
    """Read a matrix of numbers, separated by commas or blanks. Raises `UserError`, naming the line.

    The diagonal has no effect.
    """
    rows = [
        _row(line, number, path) for number, line in enumerate(text.splitlines(), start=1) if line.strip()
    ]
    count = len(rows)
    if not 2 <= count <= _MOST_SERVERS:
        raise UserError(f"{path}: {count} rows; a matrix of bandwidths has 2 to {_MOST_SERVERS}")
    for number, (line, row) in enumerate(rows):
        if len(row) != count:
            raise UserError(f"{path}, line {line}: {len(row)} numbers in a matrix of {count} rows")
        for other, gbps in enumerate(row):
            if other != number and not 1e-3 <= gbps <= _MOST_GBPS:
                raise UserError(
                    f"{path}, line {line}: {gbps:g} Gb/s from h{number + 1} to h{other + 1}; every pair "
                    f"needs 0.001 to {_MOST_GBPS:g}"
                )
    bps = [[round(gbps * 1e9) for gbps in row] for _, row in rows]
    out = [max(rate for j, rate in enumerate(row) if j != i) for i, row in enumerate(bps)]
    into = [max(bps[i][j] for i in range(count) if i != j) for j in range(count)]
    return Network(
        nics=tuple((Wire(switch=f"x{i + 1}", up_bps=out[i], down_bps=into[i]),) for i in range(count)),
        switches=tuple(f"x{i + 1}" for i in range(count)),
        between={
            (f"x{i + 1}", f"x{j + 1}"): Wire(switch=f"x{j + 1}", up_bps=bps[i][j], down_bps=bps[j][i])
            for i in range(count)
            for j in range(i + 1, count)
        },
    )


def _row(line: str, number: int, path: Path) -> tuple[int, list[float]]:
    try:
        return number, [float(word) for word in re.split(r"[\s,;]+", line.strip()) if word]
    except ValueError as error:
        raise UserError(f"{path}, line {number}: {error}; a matrix has only numbers (Gb/s)") from None
