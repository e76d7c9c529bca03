"""The search on every replicate of a scenario: what policies reach, the ceiling, and the best schedule.

All run the same batches, those that one policy forms, so that only the order of flows differs.
"""

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from experiments.atomic_file import write_text
from experiments.clairvoyant.content import content_of
from experiments.clairvoyant.question import Question
from experiments.clairvoyant.schedule import Parts, Schedule, Scheduled, static_orders
from experiments.clairvoyant.search import Outcome, anneal, score
from experiments.json_text import json_text
from experiments.resolve.jobs import resolve
from experiments.results.checksums import read_json
from experiments.results.gap import CEILING, Reached
from experiments.run.all_jobs import DONE, KEPT, RunListener
from experiments.run.ceiling import without_network
from experiments.run.directory import results_directory
from experiments.run.identity import identity_of
from experiments.scenario.scenario import Scenario
from experiments.side_by_side import Work, run_side_by_side
from experiments.sweep.plan import as_text
from testbed.fabric import RunProgress
from testbed.job import Collect
from testbed.record import RunRecord
from testbed.simulation.fabric_sim import SimulatedFabric
from testbed.simulation.run import SimulatedRun

_QUESTION: Final = "question.json"
ANSWER: Final = "clairvoyant.json"


def find_schedules(
    question: Question, *, out: Path | None, jobs: int, progress: RunListener, command: str
) -> tuple[Path, dict[str, Any]]:
    """Answer `question`; return the directory and the content of its `clairvoyant.json`.

    Each replicate is kept when it is through, and the same question with the same `out` goes on; one that is
    not through begins again. If the search is interrupted, a note gives the command that goes on. Raises
    `UserError` for what cannot be asked, and what `run_side_by_side` raises.
    """
    question.check()
    plan = question.plan()
    scenarios: dict[str, Scenario] = {}
    for cell in plan.cells:
        name = ", ".join(f"{key}={as_text(value)}" for key, value in cell.values.items())
        scenarios.setdefault(name or f"seed={cell.scenario.seed}", cell.scenario)
    asked = _asked(question, scenarios)
    with results_directory(out, f"{plan.scenario}-clairvoyant", partial(_goes_on, asked=asked)) as directory:
        write_text(directory / _QUESTION, json_text(asked))
        found = {name: one for name in scenarios if (one := _kept(directory, name)) is not None}
        for name in found:
            progress(name, RunProgress(phase=KEPT, done=question.evaluations, total=question.evaluations))
        work: list[tuple[str, Work]] = [
            (name, partial(_search_on, scenario, question))
            for name, scenario in scenarios.items()
            if name not in found
        ]

        took_s = dict.fromkeys(scenarios, 0.0)

        def heard(name: str, state: RunProgress) -> None:
            took_s[name] = state.wall_s
            progress(name, state)

        def through(name: str, result: dict[str, Any]) -> None:
            write_text(_path(directory, name), json_text(result))
            found[name] = result
            done = question.evaluations
            progress(name, RunProgress(phase=DONE, done=done, total=done, wall_s=took_s[name]))

        try:
            run_side_by_side(work, jobs=jobs, progress=heard, through=through, meanwhile=lambda: None)
            content = content_of({name: found[name] for name in scenarios}, plan, question, command)
            write_text(directory / ANSWER, json_text(content))
            return directory, content
        except BaseException as error:
            again = command if out else f"{command} --out {shlex.quote(str(directory))}"
            error.add_note(f"{len(found)} of {len(scenarios)} replicates are through; to go on: {again}")
            raise


def _search_on(
    scenario: Scenario, question: Question, progress: Callable[[RunProgress], None]
) -> dict[str, Any]:
    """Return what is reached on one replicate, as plain data."""
    jobs = [msgspec.structs.replace(job, collect=Collect.SUMMARY) for job in resolve(scenario).jobs]
    first = jobs[0]
    fabric = SimulatedFabric()
    records = {job.policy: fabric.run(job, _unheard) for job in jobs}
    free = fabric.run(without_network(first), _unheard)
    everywhere = msgspec.structs.replace(first.simulation, exact=True, hybrid=False)
    exact = msgspec.structs.replace(first, simulation=everywhere)
    parts = Parts(layers=first.model.layers, into=min(question.parts, first.model.layers))

    def evaluate(schedule: Schedule) -> Outcome:
        rows = SimulatedRun(exact, _unheard, Scheduled(schedule, parts.item)).run().requests
        return Outcome(score(rows), rows)

    begun_s = time.monotonic()

    def told(done: int) -> None:
        wall_s = time.monotonic() - begun_s
        done += len(begun)
        progress(RunProgress(phase="searching", done=done, total=question.evaluations, wall_s=wall_s))

    starts = static_orders(parts.items(records[first.policy].flows))
    begun = {name: evaluate(start) for name, start in starts.items()}
    start = max(begun, key=lambda name: begun[name].score)
    _, best, better = anneal(
        starts[start],
        evaluate,
        random=Random(scenario.seed),
        evaluations=question.evaluations - len(begun),
        progress=told,
    )
    return {
        "policies": {policy: _reached(record) for policy, record in records.items()},
        CEILING: _reached(free),
        "start": {"order": start, **_plain(Reached.of(begun[start].requests)), "score": begun[start].score},
        "found": {**_plain(Reached.of(best.requests)), "score": best.score, "better": better},
    }


def _reached(record: RunRecord) -> dict[str, Any]:
    return {**_plain(Reached.of(record.requests)), "score": score(record.requests)}


def _plain(reached: Reached) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(reached)
    return plain


def _unheard(_: RunProgress) -> None:
    """A simulation of a search is too short to be told of."""


def _asked(question: Question, scenarios: Mapping[str, Scenario]) -> dict[str, Any]:
    """Return what decides on the answer, as plain data."""
    points = json.dumps(
        [scenario.model_dump(mode="json", by_alias=True) for scenario in scenarios.values()], sort_keys=True
    )
    made_with = msgspec.to_builtins(identity_of(scenarios.values()))
    asked: dict[str, Any] = json.loads(json.dumps(asdict(question)))
    return asked | {"points": hashlib.sha256(points.encode()).hexdigest(), "made_with": made_with}


def _goes_on(directory: Path, *, asked: Mapping[str, Any]) -> bool:
    """Return whether `directory` has the same search, of which some replicates may be through."""
    path = directory / _QUESTION
    return path.is_file() and read_json(path) == asked


def _kept(directory: Path, name: str) -> dict[str, Any] | None:
    path = _path(directory, name)
    if not path.is_file():
        return None
    found = read_json(path)
    return found if isinstance(found, dict) and "found" in found else None


def _path(directory: Path, name: str) -> Path:
    return directory / f"{name}.json"
