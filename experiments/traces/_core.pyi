"""The compiled loops over traces; the C++ is in `core/`. A number of no block raises `IndexError`."""

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]

SOURCES: str
"""What `controller.compiled.digest_of` said of the C++ files when this was built."""

NO_END: int
SEVERAL_ENDS: int

def number(ids: Longs) -> None:
    """Replace ids by numbers from 0, in the order in which they first occur."""

def distances(blocks: Longs, starts: Longs, distinct: int) -> tuple[Longs, Longs, Longs]:
    """Return for each reuse its stack distance in blocks and the number of requests since the last use, and
    for each request how many of its blocks are reuses: they and all before them in the prompt had been used.

    The blocks of request i are `blocks[starts[i]:starts[i + 1]]`, and all are below `distinct`.
    """

def ends(before: Longs, deepest_first: Longs) -> Longs:
    """Return the end of the shared prefixes that continue each shared block: the block itself if there are
    none, SEVERAL_ENDS if they have several ends. `before` is the block that each block follows, NO_END if
    there is none."""
