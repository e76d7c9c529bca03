"""Links from a page to the tables and traces of its runs."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from experiments.report.markup import Markup, html
from experiments.results.parquet import TABLES
from experiments.results.reading import RunDirectory
from experiments.results.trace_window import TRACE_FILE


def file_links(directories: Sequence[RunDirectory], page: Path) -> Markup:
    """Return links from `page` to the files of `directories` that exist, relative to it."""
    return Markup("".join(_links_of(directory, page, many=len(directories) > 1) for directory in directories))


def _links_of(directory: RunDirectory, page: Path, *, many: bool) -> Markup:
    tables = [f"{name}.parquet" for name in TABLES.values()]
    traces = [f"{run['folder']}/{TRACE_FILE}" for run in directory.summary["runs"]]
    groups = (
        ("numbers", ["summary.json"]),
        ("tables", tables),
        ("traces, for ui.perfetto.dev", traces),
        ("scenario and versions", ["scenario.yaml", "versions.json"]),
    )
    links = {
        name: [
            _link(directory.path / file, file, page) for file in group if (directory.path / file).is_file()
        ]
        for name, group in groups
    }
    items = "".join(
        f"<dt>{html(name)}</dt><dd>{', '.join(found)}</dd>" for name, found in links.items() if found
    )
    title = f"<h3>{html(directory.path.resolve().name)}</h3>" if many else ""
    return Markup(f"{title}<dl>{items}</dl>") if items else Markup("")


def _link(file: Path, name: str, page: Path) -> str:
    address = Path(os.path.relpath(file.resolve(), page.resolve().parent)).as_posix()
    return f"<a href='{html(quote(address))}'>{html(name)}</a>"
