"""What a reader has to know first: the result, then what limits it, then whether to trust it."""

from collections.abc import Sequence

import msgspec

from experiments.compare.sentences import ONLY_THESE, result_sentences
from experiments.compare.sides import side_of
from experiments.report.markup import Markup, html
from experiments.report.page import paragraphs
from experiments.report.series import Series
from experiments.report.trust import trust
from experiments.results.faults import in_force
from experiments.results.limit_words import alike_lines, limits_in_one
from experiments.results.readable_numbers import duration
from experiments.results.reading import RunDirectory
from experiments.results.real_layers import real_layer_sentence


def verdict(directories: Sequence[RunDirectory], series: Sequence[Series]) -> Markup:
    faithful = all(directory.summary["faithful"] for directory in directories)
    return banner(
        ok=faithful,
        result=_results(series),
        limit=_limits(directories),
        fidelity=trust(directories),
    )


def banner(*, ok: bool, result: Sequence[str], limit: Sequence[str], fidelity: Markup) -> Markup:
    """Return the verdict of a page: sentences on the result and on its limit, and the markup on fidelity."""
    limits = ". ".join(line.rstrip(".") for line in limit)
    return Markup(
        f"<div class='verdict {'ok' if ok else 'bad'}'>"
        f"<div class=result>{paragraphs(result)}</div>"
        f"{f'<p><b>Limit.</b> {html(limits)}.</p>' if limits else ''}"
        f"{fidelity}</div>"
    )


def _results(series: Sequence[Series]) -> list[str]:
    told: list[str] = []
    serving = [one for one in series if one.requests]
    if serving:
        sides = [msgspec.structs.replace(side_of(one.directory, one.run), label=one.label) for one in serving]
        told = result_sentences(sides)
        if any("[" in sentence for sentence in told):
            told.append(Markup(f"<small>{html(ONLY_THESE)}</small>"))
    told += [
        f"{one.label} computed real layers: {real_layer_sentence(one.run['real_layers'])}."
        for one in serving
        if one.run.get("real_layers")
    ]
    told += [_coflows(one) for one in series if one.is_coflows]
    told += [_flows(one) for one in series if one.is_micro and not one.is_coflows]
    return told


def _coflows(one: Series) -> str:
    mean = duration(one.run["coflow_completion_s"]["mean"])
    return f"{one.label} completed {one.run['coflows']:,} coflows, on average after {mean}."


def _flows(one: Series) -> str:
    flows = one.run.get("flows", ())
    due = [flow for flow in flows if flow.get("deadline_s") is not None]
    in_time = sum(flow["finish_s"] <= flow["deadline_s"] for flow in due)
    said = f"{one.label} completed {len(flows):,} flows after {duration(one.run['duration_s'])}"
    return f"{said}; {in_time} of {len(due)} met their deadline." if due else f"{said}."


def _limits(directories: Sequence[RunDirectory]) -> list[str]:
    runs = [run for directory in directories for run in directory.summary["runs"]]
    alike = [line for directory in directories for line in alike_lines(directory.summary)]
    faults = [line for directory in directories for line in in_force(directory.summary)]
    return [*limits_in_one(runs), *alike, *dict.fromkeys(faults)]
