"""The order of names with numbers in them that a reader expects: h2 before h10."""

import re

_PARTS = re.compile(r"(\D*)(\d*)")


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """Sort key: `name` in pairs of text and the number behind it."""
    return tuple((text, int(number or -1)) for text, number in _PARTS.findall(name) if text or number)
