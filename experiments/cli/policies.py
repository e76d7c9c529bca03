"""`mfs policies`: the policies with their options, or everything about one of them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from experiments.cli.completion import policy_names_like
from experiments.cli.endings import told_to_the_user
from experiments.cli.listing import aligned, list_width, wrapped
from experiments.errors import UserError

if TYPE_CHECKING:
    from controller.policies.option_help import OptionHelp

_PAGES: Final = Path(__file__).parents[2] / "docs"


def policies(
    name: Annotated[
        str | None,
        typer.Argument(help="A policy, or requests: show all of it.", autocompletion=policy_names_like),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """List the policies and their options, or say what one does and what its options take."""
    with told_to_the_user():
        from controller.policies import PolicyError, describe
        from controller.spec import CONTROL, CONTROL_SUMMARY

        summaries = describe() | {f"+{CONTROL}": CONTROL_SUMMARY}
        if name is None:
            told = [_about(one, summary) for one, summary in summaries.items()]
            print(json.dumps(told, indent=2) if as_json else "\n".join(_listed(summaries)))
            return
        chosen = f"+{CONTROL}" if name.replace(" ", "").lstrip("+") == CONTROL else name
        try:
            _options(chosen)
        except PolicyError as error:
            raise UserError(str(error)) from error
        if as_json:
            print(json.dumps(_about(chosen, summaries[chosen]), indent=2))
        else:
            width = list_width()
            print("\n".join(wrapped(line, width, 8) for line in _shown(chosen, summaries[chosen])))


def _listed(summaries: dict[str, str]) -> list[str]:
    lines, width = [], list_width()
    for line, name in zip(aligned(summaries, width), summaries, strict=True):
        lines += [line, *(wrapped(f"    {option.line}", width, 8) for option in _options_or_none(name))]
    return lines


def _shown(name: str, summary: str) -> list[str]:
    from controller.policies import policy_home
    from controller.spec import CONTROL

    lines = [f"{name}: {summary}"]
    if name == f"+{CONTROL}":
        page, package = "concepts/request-control.md", None
    else:
        told, package = policy_home(name)
        page = f"policies/{name}.md"
        lines += ["", *told.splitlines()] if told else []
    lines += ["", "options:" if _options(name) else "options: none"]
    for one in _options(name):
        takes = ", ".join(filter(None, (one.kind, one.bounds)))
        lines += [f"  {one.name}={one.default}", f"      {one.help}", f"      takes {takes}"]
    if package is not None:
        return [*lines, "", f"from: the module {package}"]
    where = _PAGES / page
    return [*lines, "", f"page: {where if where.is_file() else f'docs/{page} in the repository'}"]


def _about(name: str, summary: str) -> dict[str, Any]:
    import msgspec

    return {
        "name": name,
        "summary": summary,
        "options": [msgspec.to_builtins(one) for one in _options_or_none(name)],
    }


def _options(name: str) -> "list[OptionHelp]":
    """Return the options of a policy, or of `+requests`. Raises `PolicyError` if it does not load."""
    from controller.policies import policy_options
    from controller.spec import CONTROL, control_options

    return control_options() if name == f"+{CONTROL}" else policy_options(name)


def _options_or_none(name: str) -> "list[OptionHelp]":
    """Return the same. A policy that does not load has none; its line in the list says why."""
    from controller.policies import PolicyError

    try:
        return _options(name)
    except PolicyError:
        return []
