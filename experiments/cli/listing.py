"""Lists of names and what they are."""

from collections.abc import Mapping


def aligned(rows: Mapping[str, str]) -> list[str]:
    """A line for each of `rows`, the texts below each other."""
    width = max(map(len, rows))
    return [f"{key:<{width}}  {text}".rstrip() for key, text in rows.items()]
