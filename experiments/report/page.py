"""The parts of every page: its frame, sections and figures. A page opens offline."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from experiments.report.markup import Markup, html


def page(*, title: str, subtitle: str, verdict: Markup, sections: Sequence[Markup]) -> str:
    """Return the page as text. `title` and `subtitle` are plain text, the rest is HTML."""
    folder = files("experiments.report") / "templates"
    return Template((folder / "report.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        style=(folder / "report.css").read_text(encoding="utf-8"),
        verdict=verdict,
        sections="\n".join(sections),
    )


def section(title: str, *parts: Markup) -> Markup:
    """Return a section; empty if all its parts are empty."""
    body = "".join(parts)
    return Markup(f"<section><h2>{html(title)}</h2>{body}</section>") if body else Markup("")


def figure(svg: str, caption: str) -> Markup:
    """Return a figure; empty if `svg` is empty."""
    if not svg:
        return Markup("")
    return Markup(
        f"<figure><div class=scroll><div class=plot>{svg}</div></div>"
        f"<figcaption>{html(caption)}</figcaption></figure>"
    )
