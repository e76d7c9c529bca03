"""`mfs models`: what follows from the shapes of models."""

import json
import re
from pathlib import Path

from toy_fabric import Mfs

from testbed.models.known_models import MODELS


def cells(line: str) -> list[str]:
    """Return the cells of a line, which are two or more spaces apart."""
    return re.split(r"\s{2,}", line.strip())


def test_the_command_lists_every_model(mfs: Mfs) -> None:
    assert mfs("models") == 0
    rows = {line.split()[0]: cells(line)[1:] for line in mfs.out.splitlines()[2:]}
    assert list(rows) == list(MODELS)
    assert rows["deepseek-v3"] == ["3 + 58", "8 of 256", "669.2", "35.7", "70272", "14336", "114688"]
    assert rows["llama-3-8b"] == ["32", "-", "7.0", "7.0", "131072", "8192", "0"]


def test_the_page_shows_what_the_command_prints(mfs: Mfs) -> None:
    page = (Path(__file__).parents[4] / "docs" / "concepts" / "models.md").read_text(encoding="utf-8")
    assert mfs("models") == 0
    assert "\n".join(line.rstrip() for line in mfs.out.splitlines()) in page


def test_the_command_shows_what_follows_from_a_file(mfs: Mfs, llama: Path) -> None:
    assert mfs("models", str(llama)) == 0
    rows = dict(cells(line) for line in mfs.out.splitlines())
    assert rows["model"] == "llama-3-8b"
    assert rows["layers"] == "32 dense"
    assert rows["KV of a token, B"] == "131,072"
    # 4 x 32 x 128 x (10_000 x 10_001 / 2)
    assert rows["scores of a prompt of 10,000 tokens, FLOPs"] == "819,281,920,000"
    assert "dispatch of a token, B" not in rows


def test_the_command_prints_a_shape_as_json(mfs: Mfs, llama: Path) -> None:
    assert mfs("models", str(llama / "config.json"), "--json") == 0
    shape = json.loads(mfs.out)
    assert (shape["layers"], shape["kv_heads"], shape["window"]) == (32, 8, None)
    assert mfs("models", "--json") == 0
    assert [one["name"] for one in json.loads(mfs.out)] == list(MODELS)
