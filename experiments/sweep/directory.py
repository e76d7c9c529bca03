"""The directory of a sweep: new or empty, or one with the same sweep to continue."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from experiments.atomic_file import write_text
from experiments.errors import UserError
from experiments.lost_directory import told_if_lost
from experiments.results.checksums import read_json
from experiments.results.code import code_version
from experiments.results.ended_early import PLAN
from experiments.run.identity import Identity, identity_of
from experiments.sweep.plan import Plan


@contextlib.contextmanager
def taken(directory: Path, plan: Plan, tables: bool, command: str) -> Iterator[Identity]:
    """Lock `directory` for the sweep, and yield what its cells are made with.

    The directory must be new or empty, or hold the same sweep, which continues.

    The same sweep has the same cells, made by the same code from the same files. Raises `UserError` for any
    other directory, for one that another `mfs sweep` has locked, and for one that cannot be written, and
    `RunFailed` if the directory is removed meanwhile.
    """
    made_with = identity_of(cell.scenario for cell in plan.cells)
    identity = msgspec.to_builtins(made_with) | {
        "tables": tables,
        "ceiling": plan.ceiling,
        "cells": [cell.name for cell in plan.cells],
    }
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--out {directory}: is a file; name a directory that is new or empty")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"--out {directory}: cannot write results there: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"--out {directory}: another `mfs sweep` is running there") from None
        known = _known_plan(directory)
        if known is None and any(directory.iterdir()):
            raise UserError(f"--out {directory}: is not empty and holds no sweep; name another directory")
        if known is not None:
            _refuse_another(directory, known, identity)
        if known is None:
            told = {"code": str(code_version()), "command": command}
            write_text(directory / PLAN, json.dumps(identity | told, indent=2) + "\n")
        with told_if_lost(directory, lock):
            yield made_with
    finally:
        os.close(lock)


def _refuse_another(directory: Path, known: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raise `UserError`, with the reason, if the cells in `directory` must not be mixed with this sweep."""
    different = [key for key in identity if known.get(key) != identity[key]]
    if not different:
        return
    where = f"--out {directory}"
    if {"cells", "tables", "ceiling"}.intersection(different):
        raise UserError(
            f"{where}: holds another sweep ({known.get('command')}); to continue that one, use the same"
            " options; otherwise name another directory"
        )
    if different == ["files"]:
        then, now = known.get("files"), identity["files"]
        changed = ", ".join(path for path in now if not isinstance(then, dict) or then.get(path) != now[path])
        raise UserError(f"{where}: {changed} has changed since this sweep began; name another directory")
    raise UserError(
        f"{where}: this sweep began with other code or packages"
        f" ({known.get('code', 'unknown')}; now {code_version()}):"
        " its cells cannot be mixed with new ones; name another directory"
    )


def _known_plan(directory: Path) -> dict[str, Any] | None:
    try:
        plan = read_json(directory / PLAN) if (directory / PLAN).exists() else None
    except UserError as error:
        raise UserError(f"--out {directory}: plan.json cannot be read: {error}") from None
    return plan if plan is None or isinstance(plan, dict) else {}
