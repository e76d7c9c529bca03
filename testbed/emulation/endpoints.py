"""Where the processes of a run find each other: ZeroMQ over `ipc://`, which crosses network namespaces."""

from pathlib import Path


class Endpoints:
    """Addresses below one directory. All sockets are one-way: the named process reads from it."""

    def __init__(self, directory: Path) -> None:
        self._base = f"ipc://{directory}"

    @property
    def to_controller(self) -> str:
        return f"{self._base}/controller"

    @property
    def to_coordinator(self) -> str:
        return f"{self._base}/coordinator"

    def from_controller(self, name: str) -> str:
        return f"{self._base}/from-controller-{name}"

    def from_coordinator(self, rank: int) -> str:
        return f"{self._base}/from-coordinator-{rank}"
