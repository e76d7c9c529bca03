"""What the options that several commands share change in a scenario."""

import json
from collections.abc import Sequence

from experiments.scenario.reading import Override, override


def overrides_of(
    settings: Sequence[str] = (),
    policies: Sequence[str] = (),
    seed: int | None = None,
    fabric: str | None = None,
) -> list[Override]:
    """Return what these options change. `settings` are texts of `--set`.

    Raises `UserError` for a malformed setting.
    """
    overrides = [override(text) for text in settings]
    if policies:
        written = " ".join(f"--policy {policy}" for policy in policies)
        overrides.append(Override("policies", json.dumps(list(policies)), written))
    if seed is not None:
        overrides.append(Override("seed", str(seed), f"--seed {seed}"))
    if fabric is not None:
        overrides.append(Override("fabric", json.dumps(fabric), f"--fabric {fabric}"))
    return overrides
