"""Every relative link on a page leads to a file, and to a heading where it names one."""

from pathlib import Path

import pytest
from doc_pages import PAGES, ROOT, anchors, links, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    found = links(page.read_text(encoding="utf-8"))

    assert [link for link in found if not leads_somewhere(page, link)] == []


def leads_somewhere(page: Path, link: str) -> bool:
    if link.startswith(("https://", "http://", "mailto:")):
        return True
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or anchor in anchors(target.read_text(encoding="utf-8"))


def test_every_page_is_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in links(page.read_text(encoding="utf-8")):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists():
                todo.append(target)

    assert sorted(name_of(page) for page in PAGES if page not in reached) == []


def test_a_link_in_code_is_none_and_headings_are_numbered() -> None:
    text = "# A `b` c\n\n[x](y.md#z) `[x](no.md)`\n\n```\n[x](no.md)\n# no\n```\n\n## A b, c\n"

    assert links(text) == ["y.md#z"]
    assert anchors(text) == {"a-b-c", "a-b-c-1"}
