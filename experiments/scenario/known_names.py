"""Checks that the names in a scenario are known: of models, GPUs, routers, policies, fabrics and so on.

The registries are imported when a name is checked, because reading a scenario of defaults and showing the
help of the command need none of them.
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
    """Return the name of a known model, or the absolute path of a `config.json`, which is read now."""
    from experiments.scenario.model_file import MODEL_FILES, as_model_path
    from testbed.models.known_models import MODELS

    path = as_model_path(name, Path.cwd())
    if path is None:
        return _one_of(name, MODELS, "model")
    _check("model", MODEL_FILES, path)
    return path


def known_gpu(name: str) -> str:
    """Return the name of a known GPU, or the absolute path of a profile, which is read now."""
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

    return _one_of(name, BATCHING, "batching rule")


def known_policy(spec: str) -> str:
    """Check a spec: a name, with or without options and request control, as in `mfs(rho=0) + requests`."""
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
    """Read the file that `key` names. What is wrong with the file is reported for the key."""
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
        "not a known {what}{hint} (known: {known})",
        {
            "what": what,
            "hint": f"; did you mean {guess!r}?" if guess else "",
            "known": ", ".join(names),
        },
    )
