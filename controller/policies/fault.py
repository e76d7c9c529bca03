"""Whose fault an exception is: a policy of another package is told by its name and hook."""

import traceback

from controller.policy import Policy

_OURS = "controller.policies."
_HOOKS = frozenset(name for name in vars(Policy) if name.startswith("on_")) | {"wants_ticks"}


def policy_fault(error: BaseException) -> str | None:
    """One line about an exception that came out of a hook of a policy that is not ours, else None.

    It names the policy, the hook, what was raised and the line that raised it. A fault of a policy of
    ours is a bug of ours, to be seen whole.
    """
    step = error.__traceback__
    while step is not None:
        policy, hook = step.tb_frame.f_locals.get("self"), step.tb_frame.f_code.co_name
        if isinstance(policy, Policy) and hook in _HOOKS and not type(policy).__module__.startswith(_OURS):
            last = traceback.extract_tb(step)[-1]
            said = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
            return f"policy {policy.name!r} failed in {hook}: {said} ({last.filename}, line {last.lineno})"
        step = step.tb_next
    return None
