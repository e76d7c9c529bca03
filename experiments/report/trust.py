"""Whether to trust the numbers of a report: the banner at the top, and all checks with their bounds."""

from collections.abc import Sequence

from experiments.report.markup import Markup, html, table
from experiments.report.series import Series
from experiments.results.readable_numbers import check_value
from experiments.results.reading import RunDirectory


def verdict(directories: Sequence[RunDirectory]) -> Markup:
    """Return the banner: whether the numbers can be trusted, and if not, why and what to change."""
    failed = [
        (run["policy"], check)
        for directory in directories
        for run in directory.summary["runs"]
        for check in run["fidelity"]["checks"]
        if not check["ok"]
    ]
    if all(directory.summary["faithful"] for directory in directories):
        return Markup(
            "<div class='verdict ok'><b>Faithful.</b> Every fidelity check of every run is within "
            "its bounds; the checks are listed at the end.</div>"
        )
    items = "".join(
        f"<li><b>{html(policy)}</b>: {html(check['name'])} is {html(check_value(check))}, wanted "
        f"{html(check['bound'])}. {html(check['advice'])}</li>"
        for policy, check in failed
    )
    return Markup(
        "<div class='verdict bad'><b>Not faithful.</b> A run is outside the bounds within which its "
        f"numbers stand for the model. Draw no conclusions from them.<ul>{items}</ul></div>"
    )


def checks(series: Sequence[Series]) -> Markup:
    """Table of every fidelity check with its bound."""
    rows = [
        (
            one.named,
            check["name"],
            "ok" if check["ok"] else Markup("<b class=no>failed</b>"),
            check_value(check),
            check["bound"],
        )
        for one in series
        for check in one.run["fidelity"]["checks"]
    ]
    return table(["policy", "check", "", "measured", "bound"], rows, text_columns=3)
