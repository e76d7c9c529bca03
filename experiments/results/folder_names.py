"""The folders of a run directory, one for each policy."""

import re
from collections.abc import Sequence


def folder_names(policies: Sequence[str]) -> list[str]:
    """A file name for each policy spec, distinct even where the specs differ only in punctuation."""
    names: list[str] = []
    for policy in policies:
        safe = re.sub(r"[^A-Za-z0-9._=-]+", "-", policy).strip("-.") or "policy"
        name, i = safe, 2
        while name in names:
            name, i = f"{safe}-{i}", i + 1
        names.append(name)
    return names
