"""The notebook, and the example on the page about Python, run to their ends."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from doc_pages import ROOT

import mfs

NOTEBOOK = ROOT / "docs/start/first-comparison.ipynb"
PAGE = ROOT / "docs/reference/python.md"

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def cells() -> list[dict[str, Any]]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_as_cell(text: str, names: dict[str, Any]) -> Any:
    """Run `text`, and return the value of the expression at its end, which a notebook shows."""
    *before, last = ast.parse(text).body
    if not isinstance(last, ast.Expr):
        exec(text, names)
        return None
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_the_notebook_ends_with_a_figure(capfd: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}

    shown = [run_as_cell("".join(cell["source"]), names) for cell in cells()]

    assert isinstance(shown[-1], mfs.Plot)
    assert Path("ttft.pdf").read_bytes().startswith(b"%PDF")
    assert "against fair, on the same work" in capfd.readouterr().out


def test_the_notebook_is_stored_without_outputs() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells())


def test_the_example_of_the_page_runs(capfd: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)

    exec(example, {})

    assert Path("ttft.pdf").exists()
    assert r"\end{tabular}" in capfd.readouterr().out
