"""Suggestions for misspelt names."""

import difflib
from collections.abc import Iterable


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate closest to `name`, or None if none is close."""
    close = difflib.get_close_matches(name, list(map(str, candidates)), n=1, cutoff=0.5)
    return close[0] if close else None
