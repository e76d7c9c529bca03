"""How often a policy may ask to review its flows: the bounds of its option `recheck_ns`."""

from typing import Final

from msgspec import Meta

RECHECK_NS: Final = Meta(ge=1_000)
"""Below a microsecond, a run would do nothing but review flows."""


def check_recheck(recheck_ns: int) -> None:
    """Raise `ValueError` for a value that is out of bounds."""
    if not 1_000 <= recheck_ns <= 10**15:
        raise ValueError(f"recheck_ns must be 1000 to 1e15, not {recheck_ns}")
