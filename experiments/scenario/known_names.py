"""Checks that a name in a scenario is one that something here answers to.

The registries are imported when the first name is checked: reading a scenario of defaults, or
showing the help of the command, needs none of them.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

from experiments.errors import UserError
from experiments.nearest import nearest
from experiments.scenario.checked_files import CheckedFiles
from experiments.scenario.section import ProblemKind, refusal


def known_model(name: str) -> str:
    """A model known here, or the path of a `config.json`, which has to be that of a model."""
    from experiments.scenario.model_file import MODEL_FILES, as_model_path
    from testbed.models.known_models import MODELS

    path = as_model_path(name, Path.cwd())
    if path is None:
        return _one_of(name, MODELS, "model")
    _check("model", MODEL_FILES, path)
    return path


def known_gpu(name: str) -> str:
    """A GPU known here, or the path of a profile, which has to be right."""
    from experiments.scenario.gpu_profile import GPU_FILES, as_gpu_path
    from testbed.models.gpus import GPUS

    path = as_gpu_path(name, Path.cwd())
    if path is None:
        return _one_of(name, GPUS, "GPU")
    _check("gpu", GPU_FILES, path)
    return path


def known_router(name: str) -> str:
    from testbed.serving.routing.routers import ROUTERS

    return _one_of(name, ROUTERS, "router")


def known_decode_choice(name: str) -> str:
    from testbed.serving.routing.decode_choices import DECODE_CHOICES

    return _one_of(name, DECODE_CHOICES, "decode choice")


def known_batching(name: str) -> str:
    from testbed.serving.batching.rules import BATCHING

    return _one_of(name, BATCHING, "batching")


def known_policy(spec: str) -> str:
    """`spec` is a name with or without options and request control, as in `mfs(rho=0) + requests`."""
    from controller.policies import PolicyError
    from controller.spec import read_spec

    try:
        read_spec(spec)
    except PolicyError as error:
        raise PydanticCustomError(ProblemKind.POLICY.value, "{reason}", {"reason": str(error)}) from None
    return spec


def known_path_choice(name: str) -> str:
    from testbed.simulation.paths import PathChoiceError, make_path_choice

    try:
        make_path_choice(name, seed=0)
    except PathChoiceError as error:
        raise PydanticCustomError(ProblemKind.PATH_CHOICE.value, "{reason}", {"reason": str(error)}) from None
    return name


def known_fabric(name: str) -> str:
    from testbed.fabrics import AUTO, FABRICS

    return _one_of(name, [AUTO, *FABRICS], "fabric")


def _check(key: str, files: CheckedFiles[Any], path: str) -> None:
    """Read the file that `key` names, and blame the key for what is wrong with it."""
    try:
        files.check(path)
    except UserError as error:
        raise refusal(key, str(error)) from None


def _one_of(name: str, known: Iterable[str], what: str) -> str:
    names = sorted(known)
    if name in names:
        return name
    guess = nearest(name, names)
    raise PydanticCustomError(
        ProblemKind.UNKNOWN_NAME.value,
        "no {what} here{hint} (known: {known})",
        {
            "what": what,
            "hint": f"; did you mean {guess!r}?" if guess else "",
            "known": ", ".join(names),
        },
    )
