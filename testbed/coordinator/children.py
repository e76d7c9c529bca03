"""How the processes of a run are started: with our code, whatever lies in the working directory.

`python -m` looks for modules in the working directory first. A run is root, so a `zmq.py` that lies where
the command was given must not be imported.
"""

import os
import sys

WORKING_DIRECTORY = "/"
"""Of every process of a run: the same, wherever the command was given."""


def python_module(name: str, *arguments: str) -> list[str]:
    """The command that runs module `name`, without the working directory on its path."""
    return [sys.executable, "-P", "-m", name, *arguments]


def environment() -> dict[str, str]:
    """This process's environment, with a `PYTHONPATH` that means the same from another directory."""
    kept = dict(os.environ)
    if path := kept.get("PYTHONPATH"):
        kept["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, path.split(os.pathsep)))
    return kept
