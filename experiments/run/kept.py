"""What a run keeps of the policies that are through, so that a run of the same scenario can go on from there.

It is in the folder `unfinished` of the run's directory: `run.json` says what is run, and by which code,
`scale.json` at which scale, and each record has a file. The folder goes when the results are complete.
"""

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments.atomic_file import write_text
from experiments.errors import UserError
from experiments.named_file import named_text
from experiments.results.checksums import MOST_BYTES, SUMMARY, read_json
from experiments.results.code import code_version
from experiments.results.ended_early import UNFINISHED
from experiments.results.folder_names import folder_names
from experiments.results.reading import SCENARIO
from experiments.run.identity import Identity
from experiments.run.scale_choice import ScaleChoice
from experiments.scenario.scenario import Scenario
from experiments.scenario.text import to_yaml
from testbed.record import RunRecord
from testbed.record_file import read_record, write_record

FOLDER: Final = UNFINISHED
_PLAN: Final = "run.json"
_SCALE: Final = "scale.json"
_LONGEST: Final = 60


class Kept:
    """The records that a run in `directory` keeps."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER

    def begin(self, scenario: Scenario, made_with: Identity) -> None:
        """Write down what is run, unless that was done when it began."""
        if not (self._folder / _PLAN).exists():
            self._folder.mkdir(exist_ok=True)
            plan = _plan_of(scenario, made_with) | {"code": str(code_version())}
            write_text(self._folder / _PLAN, json.dumps(plan, indent=2) + "\n")

    @property
    def choice(self) -> ScaleChoice | None:
        """The scale of what is kept; None before the first policy ran."""
        try:
            return msgspec.json.decode((self._folder / _SCALE).read_bytes(), type=ScaleChoice)
        except (OSError, msgspec.MsgspecError):
            return None

    def begin_at(self, choice: ScaleChoice) -> None:
        """Write the scale of all that will be kept. What is there of another scale goes."""
        if self.choice != choice:
            for path in self._folder.glob("*.record"):
                path.unlink()
            write_text(self._folder / _SCALE, msgspec.json.encode(choice).decode() + "\n")

    def keep(self, name: str, record: RunRecord) -> None:
        """Keep `record` under `name`. Raises `OSError` if the disk is full."""
        path = self._path(name)
        temporary = path.with_suffix(f".{os.getpid()}")
        try:
            write_record(temporary, record)
            temporary.replace(path)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                error.filename = error.filename or str(self._folder)
            raise

    def find(self, name: str) -> RunRecord | None:
        """Return the record under `name`; None if there is none, or if its file is damaged."""
        try:
            return read_record(self._path(name))
        except (OSError, ValueError, msgspec.MsgspecError):
            return None

    def all_of(self, names: Iterable[str]) -> dict[str, RunRecord]:
        """Return the records under `names` that there are."""
        found = {name: self.find(name) for name in names}
        return {name: record for name, record in found.items() if record is not None}

    def drop(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        (safe,) = folder_names([name])
        # Two names may be alike but for what a file name cannot have.
        return self._folder / f"{safe[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.record"


def can_go_on(directory: Path, scenario: Scenario, made_with: Identity) -> bool:
    """Return whether `directory` holds an unfinished run, which then is of `scenario`.

    Raises `UserError` if it is one of another scenario, or was begun by other code or with other files, and
    if the directory holds a run that is over.
    """
    path = directory / FOLDER / _PLAN
    if not path.exists():
        _refuse_one_that_is_over(directory, scenario)
        return False
    try:
        known = read_json(path)
        if not isinstance(known, dict):
            raise UserError("not a JSON object")
    except UserError as error:
        raise UserError(f"--out {directory}: {FOLDER}/{_PLAN} cannot be read: {error}") from None
    wanted = _plan_of(scenario, made_with)
    different = [key for key in wanted if known.get(key) != wanted[key]]
    if not different:
        return True
    where = f"--out {directory}: holds an unfinished run"
    if "scenario" in different:
        raise UserError(f"{where} of another scenario, or with other settings; name another directory")
    if different == ["files"]:
        now, then = wanted["files"], known.get("files")
        changed = ", ".join(path for path in now if not isinstance(then, dict) or then.get(path) != now[path])
        raise UserError(f"{where}, and {changed} has changed since it began; name another directory")
    raise UserError(
        f"{where} by other code or packages ({known.get('code', 'unknown')}; now {code_version()});"
        " name another directory"
    )


def _refuse_one_that_is_over(directory: Path, scenario: Scenario) -> None:
    """Raise `UserError` if `directory` holds results of a run: how to see them, and how to run anew."""
    if not (directory / SUMMARY).is_file():
        return
    try:
        summary = read_json(directory / SUMMARY)
        same = named_text(directory / SCENARIO, most_bytes=MOST_BYTES) == to_yaml(scenario)
        complete = not isinstance(summary, dict) or summary.get("complete", True)
    except UserError:
        same, complete = False, True
    which = "this scenario with these settings" if same else "another scenario, or with other settings"
    over = "has finished" if complete else "ended early"
    report, quoted = directory / "report.html", shlex.quote(str(directory))
    see = f"its report is {report}" if report.is_file() else f"mfs report {quoted} makes its report"
    if len(scenario.policies) > 1:
        see += f", and mfs compare {quoted} shows how its policies differ"
    raise UserError(
        f"--out {directory}: holds a run of {which}, which {over}; {see}. To run again, name another"
        " directory, or delete this one first"
    )


def _plan_of(scenario: Scenario, made_with: Identity) -> dict[str, Any]:
    plan: dict[str, Any] = msgspec.to_builtins(made_with)
    return plan | {"scenario": to_yaml(scenario)}
