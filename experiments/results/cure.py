"""The scale at which an emulated run that was not faithful would have been, by what it measured itself."""

import shlex
from collections.abc import Iterable, Sequence
from typing import Final

from experiments.results.readable_numbers import rounded_up
from testbed.job import Scale
from testbed.record import Check

_MARGIN: Final = 1.25
"""The next run is not the same one."""

_SCALE_KEYS: Final = ("time_dilation", "bytes_scale", "wall_s", "most_wall_s", "link_mbps")
_WITH_VALUE: Final = ("--out", "--retry")


def cure_of(checks: Iterable[Check], scale: Scale, *, real_bytes: bool = False) -> Scale | None:
    """Return the scale at which all `checks` of a run at `scale` would be within their bounds.

    Delays are as long, in wall time, at any scale. With a larger time dilation, and links as fast as before,
    they are shorter next to what they delay. If links delivered too little, they become slower. With
    `real_bytes`, bytes cannot be scaled, so time has to do both. None if no check failed, or if one did that
    no scale mends.
    """
    failed = [check for check in checks if not check.ok]
    if not failed or any(check.dilation is None and check.slower is None for check in failed):
        return None
    stretch = max(check.dilation or 1.0 for check in failed)
    slower = max(check.slower or 1.0 for check in failed)
    dilation = scale.time_dilation
    if real_bytes:
        dilation = rounded_up(_MARGIN * max(stretch, slower) * dilation)
        return Scale(time_dilation=dilation, bytes_scale=scale.bytes_scale)
    if stretch > 1:
        dilation = rounded_up(_MARGIN * stretch * dilation)
    if slower > 1:
        slower *= _MARGIN
    bytes_scale = scale.bytes_scale * dilation / scale.time_dilation / slower
    return Scale(time_dilation=dilation, bytes_scale=float(f"{bytes_scale:.4g}"))


def settings_of(scale: Scale) -> list[str]:
    """Return the settings of a scenario that give `scale`."""
    return [f"scale.time_dilation={scale.time_dilation:g}", f"scale.bytes_scale={scale.bytes_scale:g}"]


def command_at(words: Sequence[str], settings: Sequence[str]) -> str:
    """Return the command line `words` with `settings` instead of what it says on the scale.

    The directory of its results is left out, because it is taken.
    """
    kept: list[str] = []
    left = iter(words)
    for word in left:
        if word in _WITH_VALUE:
            next(left, None)
        elif word == "--set":
            setting = next(left, "")
            if not setting.startswith(tuple(f"scale.{key}=" for key in _SCALE_KEYS)):
                kept += [word, setting]
        elif not word.startswith(tuple(f"{option}=" for option in _WITH_VALUE)):
            kept.append(word)
    return shlex.join([*kept, *(part for setting in settings for part in ("--set", setting))])
