"""Running the cells of a sweep in parallel: joblib with one of its backends."""

import contextlib
import enum
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import joblib

from experiments.errors import UserError
from experiments.sweep.workers import begin_worker


class Engine(enum.StrEnum):
    """The backends of joblib that the sweep treats specially; joblib may have others."""

    LOKY = "loky"
    RAY = "ray"
    DASK = "dask"


_PACKAGES: dict[str, str] = {Engine.RAY: '"ray[default]"', Engine.DASK: '"dask[distributed]"'}


@contextlib.contextmanager
def engine(backend: str) -> Iterator[None]:
    """Configure joblib with `backend`. Clusters are found where their own tools look for them, in
    `RAY_ADDRESS` or `DASK_SCHEDULER_ADDRESS`. Raises `UserError` for a backend that is not available."""
    options: dict[str, Any] = {}
    if backend == Engine.LOKY:
        options |= {"initializer": begin_worker, "initargs": (os.getpid(),)}
    try:
        if backend == Engine.RAY:
            from ray.util.joblib import register_ray

            register_ray()
        if backend == Engine.DASK:
            import distributed  # noqa: F401  # joblib's own message would name neither package nor option

            if "DASK_SCHEDULER_ADDRESS" not in os.environ:
                raise UserError(
                    "--backend dask: set DASK_SCHEDULER_ADDRESS to the scheduler, as in tcp://HOST:8786"
                )
            options["scheduler_host"] = os.environ["DASK_SCHEDULER_ADDRESS"]
        configured = joblib.parallel_config(backend=backend, **options)
    except ImportError as error:
        package = _PACKAGES.get(backend, backend)
        raise UserError(f"--backend {backend}: {error}; to get it: pip install {package}") from None
    except (ValueError, OSError) as error:
        raise UserError(f"--backend {backend}: {error}") from None
    with configured, _quiet_tracker(), warnings.catch_warnings():
        # joblib warns when it restarts a worker that has grown, which users can do nothing about.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        yield


@contextlib.contextmanager
def _quiet_tracker() -> Iterator[None]:
    """Keep loky's resource tracker from warning of what it cleans up after this process was killed.

    It is a process of its own, which takes over the options of the interpreter when it starts.
    """
    option = "ignore:resource_tracker:UserWarning"
    sys.warnoptions.append(option)
    try:
        yield
    finally:
        sys.warnoptions.remove(option)
