"""The functions have the options of their commands, so that neither can do what the other cannot."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import typer

import mfs
from experiments.cli.app import app

CALLED = {"policy": "policies", "form": "format"}
"""Options whose arguments have another name."""

NOT_IN_PYTHON = {"as_json"}
"""A result has its numbers anyway."""

NOT_IN_A_COMMAND = {"progress"}
"""A command always shows its progress."""


@pytest.mark.parametrize("function", [mfs.run, mfs.sweep, mfs.compare, mfs.plot, mfs.table])
def test_a_function_has_the_options_of_its_command(function: Callable[..., Any]) -> None:
    command = typer.main.get_command(app).commands[function.__name__]  # type: ignore[attr-defined]
    options = {
        CALLED.get(one.name, one.name)
        for one in command.params
        if one.name not in {"directories", "help", *NOT_IN_PYTHON}
    }
    arguments = inspect.signature(function).parameters.values()
    named = {one.name for one in arguments if one.kind is not inspect.Parameter.VAR_POSITIONAL}

    assert named - NOT_IN_A_COMMAND == options


def test_every_function_says_what_it_takes_and_raises() -> None:
    for name in ("run", "sweep", "compare", "plot"):
        told = inspect.getdoc(getattr(mfs, name)) or ""
        assert "Args:" in told
        assert "Raises:" in told
