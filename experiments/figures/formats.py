"""The forms of figures and tables. Light to import, because the help of the command names them."""

import enum


class FigureFormat(enum.StrEnum):
    PDF = "pdf"
    SVG = "svg"
    PNG = "png"


class RunFigure(enum.StrEnum):
    """What is drawn of runs: the share of requests with at most some TTFT, or the parts of the mean TTFT."""

    TTFT = "ttft"
    PARTS = "parts"


class Width(enum.StrEnum):
    """A column of a page of two columns, or its whole width."""

    COLUMN = "column"
    PAGE = "page"


class TableFormat(enum.StrEnum):
    LATEX = "latex"
    MARKDOWN = "markdown"
    CSV = "csv"
