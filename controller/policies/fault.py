"""Names the policy of another package that raised an exception."""

import traceback

from controller.policy import Policy

_OURS = "controller.policies."
_HOOKS = frozenset(name for name in vars(Policy) if name.startswith("on_")) | {"wants_ticks"}


def policy_fault(error: BaseException) -> str | None:
    """One line about an exception from a hook of another package's policy; None for any other exception.

    It names the policy, the hook, what was raised and the line that raised it. An exception in one of our
    own policies is a bug of this project, so it is not reported this way.
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
