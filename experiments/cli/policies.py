"""`mfs policies`: the policies, with their options."""

from experiments.cli.endings import told_to_the_user
from experiments.cli.listing import aligned


def policies() -> None:
    """List the policies and the options they take."""
    with told_to_the_user():
        from controller.policies import describe, policy_names
        from controller.spec import CONTROL, CONTROL_SUMMARY, control_option_lines

        options = {name: _option_lines(name) for name in policy_names()}
        options[f"+{CONTROL}"] = control_option_lines()
        lines = aligned(describe() | {f"+{CONTROL}": CONTROL_SUMMARY})
        for line, of_this in zip(lines, options.values(), strict=True):
            print(line)
            for option in of_this:
                print(f"    {option}")


def _option_lines(policy: str) -> list[str]:
    """Return the options of a policy. One that does not load has none; its line in the list says why."""
    from controller.policies import PolicyError, option_lines

    try:
        return option_lines(policy)
    except PolicyError:
        return []
