"""Where the `mfs` command begins. It imports next to nothing until Ctrl-C ends it as it ends a command."""

import sys
from typing import Final

_INTERRUPTED: Final = 130
"""`endings.EXIT_INTERRUPTED`, which may not be imported yet."""


def main() -> None:
    """Entry point of the `mfs` command."""
    try:
        from experiments.cli.app import main as run_command
    except KeyboardInterrupt:
        print("mfs: interrupted", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
    run_command()
