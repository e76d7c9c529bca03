"""Starts the process that ranks are forked from.

It takes seconds to import torch, so it starts before anything else, even before the rest of the code of a run
is imported. For that reason this module imports little itself.
"""

import os
import subprocess
from pathlib import Path

from testbed.coordinator.children import python_module

Zygote = subprocess.Popen[bytes]
"""Runs `workers.zygote`."""


def start_zygote(directory: Path) -> Zygote:
    """Start it, with its log in `directory`."""
    with (directory / "ranks.log").open("wb") as log:
        return subprocess.Popen(
            python_module("workers.zygote"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"},
        )
