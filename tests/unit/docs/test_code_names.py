"""Files, modules and definitions that pages name exist, and so do pages that the code names."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from doc_pages import PAGES, ROOT, name_of, spans

from experiments.scenario.keys import field_at

_ROOMS = "controller|workers|testbed|experiments|tests|docs|scripts|.ci"
_FILE = re.compile(rf"((?:{_ROOMS}|mfs)/[\w./*-]*)(?:: (\w[\w.]*))?")
_MODULE = re.compile(r"(?:controller|workers|testbed|experiments)(?:\.\w+)+")
_PAGE = re.compile(r"\bdocs/[\w/-]+\.md\b")

HISTORY = {ROOT / "CHANGELOG.md"}
"""Pages that name what is no longer there."""


@pytest.mark.parametrize("page", [page for page in PAGES if page not in HISTORY], ids=name_of)
def test_code_that_a_page_names_exists(page: Path) -> None:
    assert [span for span in spans(page.read_text(encoding="utf-8")) if not exists(span)] == []


def exists(span: str) -> bool:
    """Whether `folder/`, `file.py`, `file.py: Name.member` or `package.module.Name` is there.

    True of every other text, also of a key of a scenario that looks like a module.
    """
    file = _FILE.fullmatch(span.replace("NAME", "*"))
    if file is not None:
        paths = list(ROOT.glob(file[1]))
        return bool(paths) and (file[2] is None or file[2] in definitions(paths[0]))
    parts = span.split(".")
    if _MODULE.fullmatch(span) and field_at(tuple(parts)) is None:
        for count in range(len(parts), 0, -1):
            path = ROOT.joinpath(*parts[:count])
            rest = ".".join(parts[count:])
            if path.with_suffix(".py").exists():
                return not rest or rest in definitions(path.with_suffix(".py"))
            if path.is_dir():
                return not rest
        return False
    return True


@cache
def definitions(path: Path) -> set[str]:
    """What a module defines at its top, and `Class.member`."""
    found: set[str] = set()

    def note(body: list[ast.stmt], prefix: str) -> None:
        for statement in body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(prefix + statement.name)
                if isinstance(statement, ast.ClassDef):
                    note(statement.body, f"{prefix}{statement.name}.")
            elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    note(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


def test_a_page_that_the_code_names_exists() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [name for name in listed.stdout.split() if name.endswith((".py", ".yaml", ".toml", "Makefile"))]
    named = {
        (name, page) for name in files for page in _PAGE.findall((ROOT / name).read_text(encoding="utf-8"))
    }

    assert [(name, page) for name, page in sorted(named) if not (ROOT / page).exists()] == []
    assert named


@pytest.mark.parametrize(
    ("span", "there"),
    [
        ("controller/flow.py", True),
        ("controller/flow.py: Flow.of", True),
        ("controller/flow.py: Flow.off", False),
        ("controller/flows.py", False),
        ("controller.flow.Flow", True),
        ("controller.flow.Flux", False),
        ("controller.flux", False),
        ("testbed/serving/", True),
        ("testbed/waiting/", False),
        ("workers.lanes_s3", True),
        ("any other text", True),
    ],
)
def test_a_name_is_looked_up_in_the_code(span: str, there: bool) -> None:
    assert exists(span) is there
