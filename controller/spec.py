"""The spec that names a policy in a scenario: a policy on flows, with or without request control.

`POLICY[(options)][+requests[(options)]]`: `fair`, `mfs(rho=off)`, `mfs + requests(prune=off)`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from controller.flow import PortId
from controller.overload import RequestControl
from controller.policies.option_help import OptionHelp, options_of
from controller.policies.registry import Owner, make_options, make_policy, parse
from controller.policy import Policy, PolicyError
from controller.scheduler import Scheduler

CONTROL = "requests"
CONTROL_SUMMARY = "after any policy: prefill queue by deadline, requests that make others late go last"

_CONTROL = Owner(CONTROL, f"'+{CONTROL}'", RequestControl)
_PARTS = re.compile(r"([^(+]*(?:\([^)]*\))?\s*)\+(.*)", re.DOTALL)
_NAMES_CONTROL = re.compile(rf"\s*{CONTROL}\s*(\(|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a spec names. `control` is None without `+requests`."""

    policy: Policy
    control: RequestControl | None

    def scheduler(
        self,
        ports: Mapping[PortId, int],
        pruned: Callable[[str, bool], None],
        *,
        exact: bool = False,
        hybrid: bool = False,
    ) -> Scheduler:
        """The scheduler of a run (`controller.scheduler.Scheduler` says what it takes)."""
        return Scheduler(
            self.policy, ports=ports, exact=exact, hybrid=hybrid, control=self.control, pruned=pruned
        )


def read_spec(text: str, **defaults: int | float | str | bool) -> Spec:
    """What the spec `text` names. `defaults` are for the policy's options (see `make_policy`).

    Raises `PolicyError` for an unknown name, or an unknown or ill-typed option.
    """
    parts = _PARTS.fullmatch(text)
    policy = make_policy(text if parts is None else parts[1], **defaults)
    return Spec(policy=policy, control=None if parts is None else _control(parts[2]))


def control_options() -> list[OptionHelp]:
    """The options of `+requests`."""
    return options_of(RequestControl)


def _control(text: str) -> RequestControl:
    if _NAMES_CONTROL.match(text) is None:
        raise PolicyError(
            f"a policy cannot be followed by {'+' + text.strip()!r};"
            f" there is '+{CONTROL}' or '+{CONTROL}(option=value, ...)'"
        )
    _, written = parse(text)
    return cast(RequestControl, make_options(_CONTROL, written))
