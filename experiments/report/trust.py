"""Whether to trust the numbers of a report: the verdict on fidelity, and all checks with their bounds."""

from collections.abc import Sequence

from experiments.report.markup import Markup, html, table
from experiments.report.series import Series
from experiments.results.readable_numbers import check_value
from experiments.results.reading import RunDirectory


def trust(directories: Sequence[RunDirectory]) -> Markup:
    """Say whether the numbers can be trusted, and if not, why and what to change: each failed check once,
    with the policies that failed it."""
    if all(directory.summary["faithful"] for directory in directories):
        return Markup("<p><b>Faithful.</b> Every fidelity check of every run is within its bounds.</p>")
    failed: dict[tuple[str, str, str], list[str]] = {}
    for directory in directories:
        for run in directory.summary["runs"]:
            for check in run["fidelity"]["checks"]:
                if not check["ok"]:
                    key = check["name"], check["bound"], check["advice"]
                    reason = f" ({check['reason']})" if check.get("reason") else ""
                    failed.setdefault(key, []).append(f"{check_value(check)} under {run['policy']}{reason}")
    cures = _cures(directories)
    items = "".join(
        f"<li><b>{html(name)}</b> is {html(', '.join(values))}, wanted {html(bound)}. {html(advice)}</li>"
        for (name, bound, advice), values in failed.items()
    )
    return Markup(
        "<p><b class=no>Not faithful.</b> A run is outside the bounds within which its numbers stand for the "
        f"model. Draw no conclusions from them.</p>{f'<ul>{items}</ul>' if items else ''}{cures}"
    )


def _cures(directories: Sequence[RunDirectory]) -> str:
    """With which settings the runs would have been faithful, by what they measured."""
    settings = [directory.summary.get("faithful_with", ()) for directory in directories]
    told = dict.fromkeys(" ".join(f"--set {one}" for one in each) for each in settings if each)
    return "".join(f"<p>By what was measured, this would do: <code>{html(text)}</code></p>" for text in told)


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
