"""HTML as a type of its own: what came from a run is escaped on the way into it."""

from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """HTML that is already escaped."""


def html(value: object) -> Markup:
    """`value` as HTML, escaped unless it is `Markup`."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, text_columns: int) -> Markup:
    """A table whose first `text_columns` columns are text and whose others are numbers."""

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
    """`text` behind a patch of the colour that stands for it in the figures."""
    return Markup(f"<i class=key style='background:{colour}'></i>{html(text)}")
