"""The directory of a sweep: new or empty, or one that holds this very sweep, to go on with it."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.atomic_file import write_text
from experiments.errors import UserError
from experiments.sweep.plan import Plan


@contextlib.contextmanager
def taken(directory: Path, plan: Plan, tables: bool, command: str) -> Iterator[None]:
    """Take `directory` for the sweep: a new or empty one, or one that holds this very sweep, to go on.

    Raises `UserError` for a directory of another sweep or of something else, or that another `mfs`
    works in.
    """
    identity = {
        "mfs": importlib.metadata.version("mfs-testbed"),
        "tables": tables,
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
            raise UserError(f"--out {directory}: another `mfs sweep` is at work there") from None
        known = _known_plan(directory)
        if known is None and any(directory.iterdir()):
            raise UserError(f"--out {directory}: is not empty and holds no sweep; name one that is")
        if known is not None and {key: known.get(key) for key in identity} != identity:
            raise UserError(
                f"--out {directory}: holds another sweep ({known.get('command')}); to go on with that one,"
                " use the same options and version, else name another directory"
            )
        if known is None:
            write_text(directory / "plan.json", json.dumps(identity | {"command": command}, indent=2) + "\n")
        yield
    finally:
        os.close(lock)


def _known_plan(directory: Path) -> dict[str, Any] | None:
    try:
        plan = json.loads((directory / "plan.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"--out {directory}: plan.json cannot be read: {error}") from None
    return plan if isinstance(plan, dict) else {}
