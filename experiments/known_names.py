"""Checks that a name in a scenario is one that something here answers to.

The registries are imported when the first name is checked: reading a scenario of defaults, or
showing the help of the command, needs none of them.
"""

import difflib
from collections.abc import Iterable

from pydantic_core import PydanticCustomError


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` was probably meant to be, or None when none is close."""
    close = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return close[0] if close else None


def known_model(name: str) -> str:
    from testbed.serving.models import MODELS

    return _one_of(name, MODELS, "model")


def known_gpu(name: str) -> str:
    from testbed.serving.gpus import GPUS

    return _one_of(name, GPUS, "GPU")


def known_router(name: str) -> str:
    from testbed.serving.router import ROUTERS

    return _one_of(name, ROUTERS, "router")


def known_decode_choice(name: str) -> str:
    from testbed.serving.router import DECODE_CHOICES

    return _one_of(name, DECODE_CHOICES, "decode choice")


def known_policy(spec: str) -> str:
    """`spec` is a name with or without options and request control, as in `mfs(rho=0) + requests`."""
    from controller.policies import PolicyError
    from controller.policies.spec import read_spec

    try:
        read_spec(spec)
    except PolicyError as error:
        raise PydanticCustomError("policy", "{reason}", {"reason": str(error)}) from None
    return spec


def known_path_choice(name: str) -> str:
    from testbed.simulation.paths import PathChoiceError, make_path_choice

    try:
        make_path_choice(name, seed=0)
    except PathChoiceError as error:
        raise PydanticCustomError("path_choice", "{reason}", {"reason": str(error)}) from None
    return name


def known_fabric(name: str) -> str:
    from testbed.fabrics import AUTO, FABRICS

    return _one_of(name, [AUTO, *FABRICS], "fabric")


def _one_of(name: str, known: Iterable[str], what: str) -> str:
    names = sorted(known)
    if name in names:
        return name
    guess = nearest(name, names)
    raise PydanticCustomError(
        "unknown_name",
        "no {what} here{hint} (known: {known})",
        {
            "what": what,
            "hint": f"; did you mean {guess!r}?" if guess else "",
            "known": ", ".join(names),
        },
    )
