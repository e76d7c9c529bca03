"""Whether the files of a run are as it wrote them: their digests are in its `versions.json`.

A table that was emptied, or a summary of another run, would otherwise make a report like any other.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from experiments.errors import UserError
from experiments.json_text import finite
from experiments.named_file import named_text, open_ordinary
from experiments.results.code import file_digests
from experiments.results.ended_early import not_finished

MOST_BYTES: Final = 256 * 2**20
"""How large a JSON file of a run may be. Tables may be larger than memory."""

VERSIONS: Final = "versions.json"
RESULTS: Final = "results"
"""The key of the digests: by the path of a file, relative to the directory of the run."""

CELL: Final = "cell.json"
SUMMARY_DIGEST: Final = "summary_digest"
"""The key of the digest of its summary in the `cell.json` of a sweep."""

SUMMARY: Final = "summary.json"
SEAL: Final = "digest"


def has_all_results(directory: Path) -> bool:
    """Return whether `directory` holds the summary of a run of which every policy is through."""
    try:
        summary = read_json(directory / SUMMARY)
    except UserError:
        return False
    return isinstance(summary, dict) and summary.get("complete") is True


def digests_in(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of files of a run, by name. Raises `OSError` for one that cannot be read."""
    paths = {name: directory / name for name in names}
    found = file_digests(paths.values())
    return {name: found[str(path)] for name, path in paths.items()}


def check_files(directory: Path, names: Iterable[str]) -> None:
    """Check the files of a run that are about to be read.

    A run of an earlier version of mfs has no digests, and is not checked. Raises `UserError` for a file that
    is missing, that is not an ordinary one, or that is not as the run wrote it.
    """
    names = list(names)
    missing = [name for name in (*names, VERSIONS) if not (directory / name).exists()]
    if missing and not (missing == [VERSIONS] and (directory / CELL).exists()):
        reason = f"{directory} is not the directory of a finished run: it holds no {missing[0]}"
        raise UserError((missing[0] == SUMMARY and not_finished(directory)) or reason)
    known = _known(directory)
    for name in names:
        path = directory / name
        if known is not None and name not in known:
            raise UserError(f"{path}: not a file of this run: {VERSIONS} does not name it")
        if known is None:
            _check_ordinary(path)
        elif _digest(path) != known[name]:
            raise UserError(
                f"{path}: not as the run wrote it, by its digest in {VERSIONS}: it was damaged or changed;"
                " copy it from where it is whole, or make the run again"
            )


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a JSON file with a digest of itself."""
    return {**content, SEAL: _seal(content)}


def check_seal(path: Path, content: Mapping[str, Any]) -> None:
    """Raise `UserError` if `content`, that of the file `path`, is not as it was written.

    Content of an earlier version has no digest, and is not checked.
    """
    if SEAL in content and content[SEAL] != _seal(content):
        raise UserError(
            f"{path}: not as it was written, by the digest in it: it was damaged or changed;"
            " copy it from where it is whole, or make the results again"
        )


def _seal(content: Mapping[str, Any]) -> str:
    told = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(json.dumps(finite(told), sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """Return the content of a JSON file of a run. Raises `UserError` for one that cannot be read."""
    text = named_text(path, most_bytes=MOST_BYTES)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        told = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"{path}: not JSON that can be read: {told}") from None


def _known(directory: Path) -> Mapping[str, Any] | None:
    """Return the digests of the files of a run; None if it was made before there were any."""
    path = directory / VERSIONS
    if not path.exists():
        # A cell of a sweep that keeps only summaries.
        return {SUMMARY: _object(directory / CELL).get(SUMMARY_DIGEST, "")}
    known = _object(path).get(RESULTS)
    return known if known is None or isinstance(known, dict) else {}


def _object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged: not a JSON object")
    return content


def _check_ordinary(path: Path) -> None:
    try:
        open_ordinary(path).close()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _digest(path: Path) -> str:
    try:
        return file_digests([path])[str(path)]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
