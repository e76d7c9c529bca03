"""What a server sets of the traffic classes of RDMA, outside of the programs that use it.

Sources: NCCL's documentation and its own reading of variables and files (`src/misc/param.cc`), UCX's
(`src/ucs/config/parser.c`), and the documentation of NVIDIA's network drivers (`tc/*/traffic_class` of a
device). NCCL and UCX read files by rules that people do not expect, so a setting that looks like one and is
not read is found, too (`Setting.read`).
"""

import os
import pwd
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

NCCL: Final = ("NCCL_IB_TC", "NCCL_IB_SL")
NCCL_PLUGIN: Final = "NCCL_ENV_PLUGIN"
"""A library that gives NCCL its variables. Which ones, cannot be seen from outside."""

UCX_CLASS: Final = "UCX_IB_TRAFFIC_CLASS"
_UCX: Final = re.compile(r"UCX_([A-Z0-9]+_)*(TRAFFIC_CLASS|SL)")
"""Each transport of UCX has these variables under its own name, which goes before `IB`: UCX_RC_MLX5_SL."""

_UNSET: Final = "-1"
"""NCCL takes it for no class."""

_NUMBER: Final = re.compile(r"[ \t\n\v\f\r]*(?P<number>[+-]?(0[xX][0-9a-fA-F]+|[0-9]+))")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A setting with its value, and the place that has it: `environment`, or a file and a line.

    If `read` is false, it stands there, but in a way that NCCL does not read.
    """

    name: str
    value: str
    where: str
    read: bool = True


class _Line(NamedTuple):
    name: str
    value: str
    where: str


def settings(
    environment: Mapping[str, str], root: Path = Path("/"), home: Path | None = None
) -> tuple[Setting, ...]:
    """Return the classes that are set, those of NCCL, of UCX and of devices.

    `root` is the root of files, `home` the home of the user by the user database (by default, of this
    process): NCCL does not look at HOME.
    """
    return (
        *_of_nccl(environment, root, home or _own_home()),
        *_of_ucx(environment, root),
        *_of_devices(root),
    )


def is_of_ucx(name: str) -> bool:
    """Whether `name` is a class of UCX."""
    return _UCX.fullmatch(name) is not None


def has_ucx() -> bool:
    """Whether UCX's own program is installed."""
    return shutil.which("ucx_info") is not None


# --- NCCL -----------------------------------------------------------------------------------------


def _of_nccl(environment: Mapping[str, str], root: Path, home: Path | None) -> Iterator[Setting]:
    lines = [_Line(name, value, "environment") for name, value in environment.items()]
    for path in _nccl_files(environment, root, home):
        lines += _nccl_lines(path)
    seen: set[str] = set()
    for name, text, where in lines:
        if name in NCCL and name not in seen:
            seen.add(name)  # even if it is empty: NCCL lets no file set what the environment has
            value = _number(text)
            if value != _UNSET:
                yield Setting(name=name, value=value, where=where)
        elif name not in NCCL and name.strip().upper() in NCCL and text.strip():
            yield Setting(name=name, value=text, where=where, read=False)
    plugin = environment.get(NCCL_PLUGIN, "none")
    if plugin not in ("", "none"):
        yield Setting(name=NCCL_PLUGIN, value=plugin, where="environment")


def _nccl_files(environment: Mapping[str, str], root: Path, home: Path | None) -> Iterator[Path]:
    """The files that NCCL reads, the one that goes first before the other."""
    if named := environment.get("NCCL_CONF_FILE"):
        yield Path(named)
    elif home is not None:
        yield home / ".nccl.conf"
    yield root / "etc" / "nccl.conf"


def _nccl_lines(path: Path) -> Iterator[_Line]:
    """The settings in a file of NCCL. Spaces belong to names, and only a first `#` begins a comment."""
    for number, line in enumerate(_text(path).split("\n"), start=1):
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            yield _Line(name, value, f"{path}, line {number}")


def _number(text: str) -> str:
    """The number that NCCL takes `text` for, as strtoll does: decimal, octal or hexadecimal, up to the first
    character that belongs to none, and 0 for what begins with no number. Nothing is no class."""
    if not text:
        return _UNSET
    found = _NUMBER.match(text)
    if found is None:
        return "0"
    number = found["number"].lower()
    digits = number.lstrip("+-")
    if digits.startswith("0") and not digits.startswith("0x"):
        octal = re.match(r"[0-7]*", digits)
        assert octal is not None
        value = int(octal[0], 8)
    else:
        value = int(digits, 0)
    value = -value if number.startswith("-") else value
    return str(value) if -(2**63) <= value < 2**63 else _UNSET


def _own_home() -> Path | None:
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


# --- UCX ------------------------------------------------------------------------------------------


def _of_ucx(environment: Mapping[str, str], root: Path) -> Iterator[Setting]:
    found = {name: _Line(name, value, "environment") for name, value in environment.items()}
    for path in _ucx_files(environment, root):
        for line in reversed(list(_ucx_lines(path))):  # the last one in a file counts
            found.setdefault(line.name, line)
    for name in sorted(found):
        if is_of_ucx(name) and found[name].value:
            yield Setting(name=name, value=found[name].value, where=found[name].where)


def _ucx_files(environment: Mapping[str, str], root: Path) -> Iterator[Path]:
    """The files that UCX reads, but for the one beside its library; the one that goes first before others."""
    for directory in (".", environment.get("UCX_CONFIG_DIR"), environment.get("HOME")):
        if directory:
            yield Path(directory) / "ucx.conf"
    yield root / "etc" / "ucx" / "ucx.conf"


def _ucx_lines(path: Path) -> Iterator[_Line]:
    """The settings in a file of UCX, an INI file. Its sections are for kinds of machines: all count here."""
    for number, line in enumerate(_text(path).splitlines(), start=1):
        name, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith(("#", ";")):
            value = re.split(r"\s;", value, maxsplit=1)[0]
            yield _Line(name.strip(), value.strip(), f"{path}, line {number}")


# --- devices --------------------------------------------------------------------------------------


def _of_devices(root: Path) -> Iterator[Setting]:
    for path in sorted((root / "sys" / "class" / "infiniband").glob("*/tc/*/traffic_class")):
        if value := _text(path).strip():
            device = path.parents[2].name
            yield Setting(name=f"traffic_class of {device}", value=value, where=str(path))


def _text(path: Path) -> str:
    """What is in a file; nothing if it is not there or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
