"""Finds a policy by name, and makes it from a spec like `mfs(rho=0, rli=off)`."""

import difflib
import importlib.metadata
import inspect
import re
import sys
import typing
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from controller.policies.option_help import OptionHelp, kind_in_words, options_of
from controller.policy import Policy, PolicyError, weights_of

ENTRY_POINT_GROUP = "mfs.policies"

_SPEC = re.compile(r"\s*([\w.-]+)\s*(?:\((.*)\))?\s*", re.DOTALL)
_SWITCH = {"on": True, "off": False}
_POLICIES: dict[str, type[Policy]] = {}

P = typing.TypeVar("P", bound=type[Policy])


def register(policy: P) -> P:
    """Class decorator: make `policy` known by its `name`. Raises `PolicyError` if the name is taken."""
    if policy.name in _POLICIES:
        raise PolicyError(f"two policies are called {policy.name!r}")
    _POLICIES[policy.name] = policy
    return policy


def policy_names() -> list[str]:
    """All names that `make_policy` takes, ours and those of installed packages, in alphabetical order."""
    return sorted(_known())


def describe() -> dict[str, str]:
    """Name -> summary, for every policy. For a policy that does not load, the summary is the error."""
    lines = {}
    for name in policy_names():
        try:
            lines[name] = _policy_class(name).summary
        except PolicyError as error:
            lines[name] = str(error)
    return lines


def policy_options(name: str) -> list[OptionHelp]:
    """The options of policy `name`. Raises `PolicyError` if there is no such policy."""
    return options_of(_policy_class(name).Options)


def policy_home(name: str) -> tuple[str, str | None]:
    """The text that policy `name`'s module begins with, and its package if that is not this one.

    Raises `PolicyError` if there is no such policy.
    """
    policy = _policy_class(name)
    module = sys.modules.get(policy.__module__)
    told = inspect.cleandoc((module.__doc__ if module else None) or "")
    return told, None if name in _POLICIES else policy.__module__


def make_policy(spec: str, **defaults: int | float | str | bool) -> Policy:
    """The policy that `spec` names, with its options: `fair`, `mfs`, `mfs(rho=0, rli=off)`.

    `defaults` come from the scenario. A policy takes those that it has options for, and the spec overrides
    them. Raises `PolicyError` for an unknown name, or an unknown or ill-typed option.
    """
    name, written = parse(spec)
    policy = _policy_class(name)
    owner = Owner(name, f"policy {name!r}", policy.Options)
    known = typing.get_type_hints(policy.Options)
    taken = {key: value for key, value in defaults.items() if key in known}
    options = make_options(owner, written, taken)
    try:
        made = policy(options)
        weights_of(made)
        return made
    except PolicyError:
        raise
    except ValueError as error:
        raise PolicyError(f"{owner.called} cannot be made: {error}") from error
    except Exception as error:  # as when it is loaded: say whose policy it is
        raise PolicyError(f"{owner.called} cannot be made: {type(error).__name__}: {error}") from error


class Owner(typing.NamedTuple):
    """What takes options: its name in a spec, its name in messages, and the dataclass of its options."""

    name: str
    called: str
    options: type


def parse(spec: str) -> tuple[str, dict[str, str]]:
    """The name and the options in `name` or `name(option=value, ...)`. Raises `PolicyError`."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise PolicyError(f"{spec!r} is not a policy; write name or name(option=value, ...)")
    options: dict[str, str] = {}
    for part in filter(None, map(str.strip, (match[2] or "").split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise PolicyError(f"{spec!r}: {part!r} is not option=value")
        if key in options:
            raise PolicyError(f"{spec!r}: {key!r} is there twice")
        options[key] = value
    return match[1], options


def make_options(
    owner: Owner, written: Mapping[str, str], defaults: Mapping[str, object] = MappingProxyType({})
) -> object:
    """An instance of `owner.options`: from `written`, then `defaults`, then its own defaults.

    Raises `PolicyError` for an unknown or ill-typed option. Of an unknown one, the error lists the options.
    """
    types = typing.get_type_hints(owner.options)
    unknown = next((key for key in written if key not in types), None)
    if unknown is not None:
        raise PolicyError(_unknown_option(owner, unknown))
    given = {**defaults, **written}
    values = {key: _typed(owner, key, value, types[key]) for key, value in given.items()}
    try:
        options: object = owner.options(**values)
    except ValueError as error:
        raise PolicyError(f"{owner.called} cannot be made: {error}") from error
    return options


def _known() -> Mapping[str, type[Policy] | importlib.metadata.EntryPoint]:
    known: dict[str, type[Policy] | importlib.metadata.EntryPoint] = dict(_POLICIES)
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        # A policy that registers itself and also has an entry point is loaded already.
        known.setdefault(point.name, point)
    return known


def _policy_class(name: str) -> type[Policy]:
    if name in _POLICIES:  # does not look at installed packages, which takes milliseconds
        return _POLICIES[name]
    known = _known()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise PolicyError(f"there is no policy {name!r}{hint} (policies: {', '.join(sorted(known))})")
    found = known[name]
    if isinstance(found, type):
        return found
    try:
        policy = found.load()
    except Exception as error:  # anything may be wrong in the other package: say whose policy it is
        raise PolicyError(f"policy {name!r} ({found.value}) does not load: {error}") from error
    if not (isinstance(policy, type) and issubclass(policy, Policy)):
        raise PolicyError(f"policy {name!r}: {found.value} is not a subclass of Policy")
    if not all(isinstance(getattr(policy, word, None), str) for word in ("name", "summary")):
        raise PolicyError(f"policy {name!r}: {found.value} has no name or no summary")
    if policy.name != name:
        raise PolicyError(f"policy {name!r}: {found.value} is called {policy.name!r}, not {name!r}")
    return policy


def _typed(owner: Owner, key: str, value: object, kind: object) -> object:
    if kind is bool and isinstance(value, str):
        value = _SWITCH.get(value, value)
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        wants = kind_in_words(kind)
        raise PolicyError(f"{owner.called} cannot take {key}={value}; it wants {wants}") from error


def _unknown_option(owner: Owner, key: str) -> str:
    options = options_of(owner.options)
    near = difflib.get_close_matches(key, [one.name for one in options], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    valid = "".join(f"\n  {one.line}" for one in options) or " none"
    return f"{owner.called} has no option {key!r}{hint}\noptions of {owner.name} with their defaults:{valid}"
