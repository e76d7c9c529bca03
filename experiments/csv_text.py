"""CSV for files and other programs."""

import csv
import io
import re
from collections.abc import Iterable
from typing import Any, Final

_FORMULA: Final = re.compile(r"[=+\-@\t]")
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows of cells as CSV, with an empty cell for None.

    A spreadsheet would run text like `=1+1` as a formula, so such text begins with an apostrophe.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str):
        value = value.replace("\r", "\n")  # the csv module does not quote it
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
