"""Lists of names with their descriptions."""

from collections.abc import Mapping


def aligned(rows: Mapping[str, str]) -> list[str]:
    """Return a line for each of `rows`, with the descriptions aligned."""
    width = max(map(len, rows))
    return [f"{key:<{width}}  {text}".rstrip() for key, text in rows.items()]
