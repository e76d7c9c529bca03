"""ZeroMQ addresses of the processes of a run. `ipc://` works across network namespaces."""

from pathlib import Path


class Endpoints:
    """Addresses in one directory. Each is read by one process, which its name or argument gives."""

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
