"""The formats of files that describe a network, by name."""

import enum
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from experiments.named_file import named_text
from experiments.topology_formats.links import read_links
from experiments.topology_formats.matrix import read_matrix
from experiments.topology_formats.network import Network
from experiments.topology_formats.ns3 import read_astra_sim, read_simai


class NetworkFormat(enum.StrEnum):
    LINKS = "links"
    MATRIX = "matrix"
    SIMAI = "simai"
    ASTRA_SIM = "astra-sim"


READERS: dict[NetworkFormat, Callable[[str, Path], Network]] = {
    NetworkFormat.LINKS: read_links,
    NetworkFormat.MATRIX: read_matrix,
    NetworkFormat.SIMAI: read_simai,
    NetworkFormat.ASTRA_SIM: read_astra_sim,
}

MOST_BYTES = 64 * 2**20


def file_text(path: Path) -> str:
    """Return the text of a file. Raises `UserError` for a file that cannot be read."""
    return named_text(path, most_bytes=MOST_BYTES, encoding="utf-8-sig")


@lru_cache(maxsize=8)
def read_network(text: str, format: NetworkFormat, path: Path) -> Network:
    """Read the text of the file `path`. Raises `UserError` for another format, naming the line."""
    return READERS[format](text, path)
