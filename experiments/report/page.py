"""The parts of every page: its frame, contents, sections and figures. It opens offline and has no scripts."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template

import msgspec

from experiments.report.markup import Markup, html


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a page with its heading. One without a body is not shown."""

    title: str
    body: Markup


def page(*, title: str, subtitle: str, verdict: Markup, sections: Sequence[Section]) -> str:
    """Return the page as text. `title` and `subtitle` are plain text, the rest is HTML."""
    folder = files("experiments.report") / "templates"
    shown = [one for one in sections if one.body]
    return Template((folder / "report.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        style=(folder / "report.css").read_text(encoding="utf-8"),
        verdict=verdict,
        contents="".join(f"<li><a href='#{_anchor(one.title)}'>{html(one.title)}</a></li>" for one in shown),
        sections="\n".join(
            f"<section id='{_anchor(one.title)}'><h2>{html(one.title)}</h2>{one.body}</section>"
            for one in shown
        ),
    )


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def section(title: str, *parts: Markup) -> Section:
    """Return a section; it has no body if all its parts are empty."""
    return Section(title=title, body=Markup("".join(parts)))


def folded(summary: str, *parts: Markup, printed: bool = True) -> Markup:
    """Return parts that are shown on demand; empty if all of them are empty.

    In print, they are shown or, unless `printed`, left out.
    """
    body = "".join(parts)
    kind = "" if printed else " class=unprinted"
    return (
        Markup(f"<details{kind}><summary>{html(summary)}</summary>{body}</details>") if body else Markup("")
    )


def paragraphs(lines: Iterable[str]) -> Markup:
    """Return a paragraph for each line of plain text or `Markup`."""
    return Markup("".join(f"<p>{html(line)}</p>" for line in lines))


def figure(svg: str, caption: str, legend: Markup | None = None) -> Markup:
    """Return a figure, below a legend if it has none of its own; empty if `svg` is empty."""
    if not svg:
        return Markup("")
    return Markup(
        f"<figure>{legend or ''}<div class=scroll><div class=plot>{svg}</div></div>"
        f"<figcaption>{html(caption)}</figcaption></figure>"
    )
