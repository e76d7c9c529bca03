"""What a server sets of the traffic classes of RDMA, outside of the programs that use it.

Sources: the documentation of NCCL (environment variables; `NCCL_CONF_FILE` or `~/.nccl.conf`, and
`/etc/nccl.conf`), of UCX (`UCX_IB_TRAFFIC_CLASS`), and of NVIDIA's network drivers (`tc/*/traffic_class` of a
device).
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

NCCL: Final = ("NCCL_IB_TC", "NCCL_IB_SL")
UCX: Final = ("UCX_IB_TRAFFIC_CLASS",)

_UNSET: Final = "-1"
"""NCCL takes it for no class."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A setting with its value, and the place that has it: `environment`, or a file."""

    name: str
    value: str
    where: str


def settings(environment: Mapping[str, str], root: Path = Path("/")) -> tuple[Setting, ...]:
    """Return the classes that are set, those of NCCL, of UCX and of devices. `root` is the root of files."""
    found = {
        name: Setting(name=name, value=environment[name], where="environment")
        for name in (*NCCL, *UCX)
        if environment.get(name)
    }
    for path in _nccl_files(environment, root):
        for name, value in _lines(path):
            if name in NCCL:
                found.setdefault(name, Setting(name=name, value=value, where=str(path)))
    return (*(one for one in found.values() if one.value != _UNSET), *_of_devices(root))


def has_ucx() -> bool:
    """Whether UCX's own program is installed."""
    return shutil.which("ucx_info") is not None


def _nccl_files(environment: Mapping[str, str], root: Path) -> Iterator[Path]:
    """The files that NCCL reads, the one that goes first before the other."""
    if named := environment.get("NCCL_CONF_FILE"):
        yield Path(named)
    elif home := environment.get("HOME"):
        yield Path(home) / ".nccl.conf"
    yield root / "etc" / "nccl.conf"


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The settings in a file; none if it is not there or cannot be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        name, equals, value = line.partition("#")[0].partition("=")
        if equals and value.strip():
            yield name.strip(), value.strip()


def _of_devices(root: Path) -> Iterator[Setting]:
    for path in sorted((root / "sys" / "class" / "infiniband").glob("*/tc/*/traffic_class")):
        try:
            value = path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        if value:
            device = path.parents[2].name
            yield Setting(name=f"traffic_class of {device}", value=value, where=str(path))
