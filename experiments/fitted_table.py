"""Tables that stay readable in a narrow terminal: what does not fit goes below, and nothing is cut."""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

_UNBROKEN: Final = 24
"""A column with `overflow="fold"` breaks longer words than this, such as names of files, if it has to."""

_PIECES: Final = re.compile(r"\s+|(?<=[(,])(?=.)", re.DOTALL)
"""Where a column with `overflow="fold"` breaks lines: at spaces, and between the options of a spec."""

_WIDE: Final = 10_000


class _Width(NamedTuple):
    """What a column needs so that no word is broken, and what it needs so that no line is."""

    least: int
    most: int


class FittedTable(Table):
    """A table without a box. If it is too wide, its columns are divided among tables one below the other.

    Each of them begins with the first `keys` columns. Lines are broken between words before that happens,
    except in columns with `no_wrap`.
    """

    def __init__(self, *, keys: int = 1, gap: int = 1, **options: Any) -> None:
        super().__init__(box=None, padding=(0, gap, 0, 0), title_justify="left", **options)
        self.keys = keys
        self._gap = gap

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [self._width(column, console, options) for column in self.columns]
        if self._total([width.most for width in widths]) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        everything = list(range(len(widths)))
        if self._total([width.least for width in widths]) <= options.max_width:
            yield self._part(everything, widths, console, options.max_width, self.title)
            return
        title = self.title
        for i, chosen in enumerate(self._divided(widths, options.max_width)):
            if i:
                yield Text("")
            yield self._part(chosen, widths, console, options.max_width, title)
            title = None

    def _total(self, widths: Sequence[int]) -> int:
        """The last column needs no gap, but rich leaves one."""
        return sum(widths) + self._gap * len(widths)

    @staticmethod
    def _width(column: Column, console: Console, options: ConsoleOptions) -> _Width:
        wide = options.update(max_width=_WIDE)
        found = [Measurement.get(console, wide, cell) for cell in (column.header, *column.cells)]
        most = max(cell.maximum for cell in found)
        if column.no_wrap:
            return _Width(most, most)
        if column.overflow == "fold":
            cells = [_text(cell, console) for cell in (column.header, *column.cells)]
            pieces = (cell_len(piece) for cell in cells for piece in _PIECES.split(cell.plain))
            return _Width(min(max(pieces, default=0), _UNBROKEN, most), most)
        return _Width(max(cell.minimum for cell in found), most)

    def _divided(self, widths: Sequence[_Width], max_width: int) -> list[list[int]]:
        """Return the columns of each table: the keys, and as many others as fit, but at least one."""
        keys = list(range(min(self.keys, len(widths))))
        room = max_width - self._total([widths[i].least for i in keys])
        parts: list[list[int]] = []
        left = 0
        for i in range(len(keys), len(widths)):
            needed = widths[i].most + self._gap
            if not parts or needed > left:
                parts.append([*keys])
                left = room
            parts[-1].append(i)
            left -= needed
        return parts or [keys]

    def _part(
        self, chosen: Sequence[int], widths: Sequence[_Width], console: Console, max_width: int, title: Any
    ) -> Table:
        """Return a table of the `chosen` columns that takes `max_width` at most, if words allow it."""
        part = Table(
            title=title,
            title_justify=self.title_justify,
            box=None,
            padding=(0, self._gap, 0, 0),
            show_header=self.show_header,
        )
        spare = max_width - self._total([widths[i].least for i in chosen])
        given: dict[int, int] = {}
        # A long spec reads well on two lines, a number with its interval does not: it gets its room first.
        for i in sorted(chosen, key=lambda i: self.columns[i].overflow == "fold"):
            least, most = widths[i]
            given[i] = least + max(0, min(spare, most - least))
            spare -= given[i] - least
        cells = []
        for i in chosen:
            column = self.columns[i]
            part.add_column(
                column.header,
                justify=column.justify,
                overflow="fold",
                no_wrap=column.no_wrap,
                style=column.style,
                width=given[i],
            )
            lined = column.overflow == "fold" and not column.no_wrap
            cells.append([_lines(_text(one, console), given[i]) if lined else one for one in column.cells])
        for r, row in enumerate(self.rows):
            part.add_row(*(column[r] for column in cells), style=row.style, end_section=row.end_section)
        return part


def _text(cell: Any, console: Console) -> Text:
    """Return a cell of text as it is shown."""
    return console.render_str(cell) if isinstance(cell, str) else cell


def _lines(cell: Text, width: int) -> Text:
    """Return `cell` with its lines broken at `_PIECES`, so that they take `width` at most, if they can."""
    broken = Text(style=cell.style, end="")
    for line in cell.split("\n", allow_blank=True):
        if broken:
            broken.append("\n")
        used = 0
        for piece in line.divide([match.end() for match in _PIECES.finditer(line.plain)]):
            needed = cell_len(piece.plain.rstrip())
            if used and used + needed > width:
                broken.append("\n")
                used = 0
            broken.append_text(piece)
            used += cell_len(piece.plain)
    return broken
