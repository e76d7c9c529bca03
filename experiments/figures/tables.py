"""Tables for papers: LaTeX, Markdown or CSV."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from experiments.csv_text import csv_text
from experiments.figures.curves import MEASURES, POLICY, Curve
from experiments.figures.formats import TableFormat
from experiments.results.paired import Difference

_LATEX: Final = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def table_text(curves: Sequence[Curve], *, x: str, y: str, form: TableFormat) -> str:
    """Return a table with a line per policy and a column per value of `x`, or one column if `x` is `POLICY`.

    It has means, with half their 95 % intervals after "±" where there are replicates. LaTeX needs the package
    booktabs. CSV is for programs: it has a line per policy and value, with the ends of the interval.
    """
    title, factor = MEASURES[y]
    if form is TableFormat.CSV:
        return csv_text(_lines(curves, x, title, factor))
    if x == POLICY:
        places: list[Any] = [title]
        heads = [POLICY, title]
        rows = [[one.label, _cell(one.y[0], factor)] for one in curves]
    else:
        places = list(dict.fromkeys(at for one in curves for at in one.x))
        heads = [POLICY, *(f"{x} = {at}" for at in places)]
        rows = []
        for one in curves:
            at = dict(zip(one.x, one.y, strict=True))
            rows.append([one.label, *(_cell(at.get(place), factor) for place in places)])
    if form is TableFormat.MARKDOWN:
        lines = [heads, ["---", *["---:"] * len(places)], *rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{title}\n"
    body = [r" & ".join(map(_escaped, line)) + r" \\" for line in (heads, *rows)]
    lines_of = [
        rf"% {title}; mean $\pm$ half of the 95 % interval over replicates",
        rf"\begin{{tabular}}{{l{'r' * len(places)}}}",
        r"\toprule",
        body[0],
        r"\midrule",
        *body[1:],
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines_of) + "\n"


def _lines(curves: Sequence[Curve], x: str, title: str, factor: float) -> Iterator[list[Any]]:
    keys = [] if x == POLICY else [x]
    yield [POLICY, *keys, title, "low", "high"]
    for one in curves:
        for at, found in zip(one.x, one.y, strict=True):
            numbers = (found.mean, found.low, found.high)
            scaled = [None if number is None else round(factor * number, 6) for number in numbers]
            yield [one.label, *([at] if keys else []), *scaled]


def _cell(found: Difference | None, factor: float) -> str:
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{factor * found.mean:.4g}"
    half = factor * (found.high - found.low) / 2
    decimals = 0 if half >= 10 else 1 if half >= 1 else 2
    return f"{factor * found.mean:.{decimals}f} ± {half:.{decimals}f}"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(one, one) for one in text).replace("±", r"$\pm$")
