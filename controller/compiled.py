"""What a compiled module was built from, so that one that is older than its sources is noticed."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest_of(root: Path, folders: Iterable[str]) -> str:
    """Return the SHA-256 of the names and contents of the C++ files in `folders`, which are below `root`.

    setup.py puts it into each compiled module as `SOURCES`.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((root / folder).glob("*.[ch]pp")):
            digest.update(f"{folder}/{path.name}".encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
