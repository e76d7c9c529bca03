"""`mfs completion`: the script with which a shell completes commands, scenarios, policies and keys."""

import enum
import os
from collections.abc import Iterator
from typing import Annotated, Final

import typer

from experiments.cli.endings import told_to_the_user

_ASKS: Final = "_MFS_COMPLETE"
"""The environment variable with which a script asks `mfs`."""


class Shell(enum.StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell that the script is for.")],
) -> None:
    """Print a script that lets a shell complete `mfs`. For bash: eval "$(mfs completion bash)"."""
    with told_to_the_user():
        # Typer has the scripts, but its own way to show them is an option of `mfs` itself.
        from typer.completion import get_completion_script  # type: ignore[attr-defined]

        print(get_completion_script(prog_name="mfs", complete_var=_ASKS, shell=shell.value))


def prepare() -> None:
    """If a shell asks for completions, let Typer know the shells: without its own option, it does not."""
    if _ASKS in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()


def scenario_names_like(incomplete: str) -> Iterator[str]:
    """Yield the scenarios of the package that begin like this. If there are none, a shell offers files."""
    from importlib import resources

    for entry in resources.files("experiments").joinpath("scenarios").iterdir():
        name = entry.name.removesuffix(".yaml")
        if name != entry.name and name.startswith(incomplete):
            yield name


def policy_names_like(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the policies that begin like this, each with its summary."""
    from controller.policies import describe

    for name, summary in describe().items():
        if name.startswith(incomplete):
            yield name, summary


def keys_like(incomplete: str) -> Iterator[str]:
    """Yield the keys of a scenario that begin like this, with the `=` that follows."""
    from experiments.scenario.keys import settable_keys

    for key in settable_keys():
        if key.startswith(incomplete):
            yield f"{key}="


def fabric_names_like(incomplete: str) -> list[str]:
    from testbed.fabrics import AUTO, FABRICS

    return [name for name in (AUTO, *map(str, FABRICS)) if name.startswith(incomplete)]


def measures_like(incomplete: str) -> list[str]:
    from experiments.figures.curves import MEASURES

    return [name for name in MEASURES if name.startswith(incomplete)]
