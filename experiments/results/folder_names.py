"""The names of the policies' folders in a run directory."""

import re
from collections.abc import Sequence


def folder_names(policies: Sequence[str]) -> list[str]:
    """Return a folder name for each policy spec, distinct even if specs differ only in punctuation."""
    names: list[str] = []
    for policy in policies:
        safe = re.sub(r"[^A-Za-z0-9._=-]+", "-", policy).strip("-.") or "policy"
        name, i = safe, 2
        while name in names:
            name, i = f"{safe}-{i}", i + 1
        names.append(name)
    return names
