"""A type for HTML: whatever is not of this type is escaped."""

from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """HTML that is already escaped."""


def html(value: object) -> Markup:
    """Return `value` as HTML, escaped unless it is `Markup`."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, text_columns: int) -> Markup:
    """Return a table whose first `text_columns` columns are text and the others numbers."""

    def line(tag: str, cells: Sequence[object]) -> str:
        return "".join(
            f"<{tag}{'' if i < text_columns else ' class=n'}>{html(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return Markup(
        f"<div class=scroll><table><thead><tr>{line('th', headings)}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def keyed(colour: str, text: object) -> Markup:
    """Return `text` after a patch of its colour in the figures."""
    return Markup(f"<i class=key style='background:{colour}'></i>{html(text)}")
