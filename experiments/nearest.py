"""The name that a misspelt one was probably meant to be."""

import difflib
from collections.abc import Iterable


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` was probably meant to be, or None when none is close."""
    close = difflib.get_close_matches(name, list(map(str, candidates)), n=1, cutoff=0.5)
    return close[0] if close else None
