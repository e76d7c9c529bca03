"""The page of one request: its timeline and its story under each policy."""

from collections.abc import Sequence
from pathlib import Path

from experiments.atomic_file import write_text
from experiments.errors import UserError
from experiments.explain.request_story import no_request
from experiments.explain.words import outcome
from experiments.nearest import nearest
from experiments.report.page import page, section
from experiments.report.request_section import one_request
from experiments.report.series import Series, series_of
from experiments.report.trust import trust
from experiments.report.verdict import banner
from experiments.results.reading import RunDirectory, read_run
from testbed.record import RequestRow


def write_request_page(dirs: Sequence[Path], request: int, out: Path, policy: str | None = None) -> Path:
    """Write a page on `request` in the runs of `dirs`, under `policy` or all, to `out`, and return `out`.

    Raises `UserError` for a directory that holds no finished run, and if no run has this policy or request.
    """
    directories = [read_run(path) for path in dirs]
    chosen = _under(series_of(directories), policy)
    found = [(one, row) for one in chosen for row in one.tables.requests if row.request == request]
    if not found:
        numbers = sorted({row.request for one in chosen for row in one.tables.requests})
        raise UserError(no_request(numbers, [one.label for one in chosen], request))
    write_text(out, _rendered(directories, found, request))
    return out


def _rendered(
    directories: Sequence[RunDirectory], found: Sequence[tuple[Series, RequestRow]], request: int
) -> str:
    titles = list(dict.fromkeys(directory.summary["scenario"] for directory in directories))
    return page(
        title=f"{', '.join(titles)}: request {request}",
        subtitle=", ".join(one.label for one, _ in found),
        verdict=banner(
            ok=all(directory.summary["faithful"] for directory in directories),
            result=[f"Under {one.label}: {outcome(row)}" for one, row in found],
            limit=(),
            fidelity=trust(directories),
        ),
        sections=[section(f"Under {one.label}", one_request(one, row)) for one, row in found],
    )


def _under(series: Sequence[Series], policy: str | None) -> Sequence[Series]:
    if policy is None:
        return series
    found = [one for one in series if one.run["policy"] == policy]
    if not found:
        known = list(dict.fromkeys(one.run["policy"] for one in series))
        guess = nearest(policy, known)
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise UserError(f"--policy {policy}: there is no such policy{hint} (there are: {', '.join(known)})")
    return found
