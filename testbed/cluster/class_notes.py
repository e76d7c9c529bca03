"""What `mfs cluster doctor` says of traffic classes that are set on servers from outside. Pure.

They concern NCCL and UCX over RDMA, which runs here do not use. They are told so that nobody takes a cluster
for one without classes, and because they would silently beat the classes of communicators.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from workers.agent_protocol import Here
from workers.traffic_classes import NCCL, NCCL_PLUGIN, UCX_CLASS, Setting, is_of_ucx

_UCX_DEFAULT: Final = "106"
"""On RoCE v2, if UCX_IB_TRAFFIC_CLASS is `auto` or not set."""

_NCCL_DEFAULT: Final = "0"


def class_notes(here: Mapping[str, Here]) -> Iterator[str]:
    """Yield a sentence for each class on a server that would override another, or split its traffic."""
    for host, one in here.items():
        for setting in one.machine.classes:
            if not setting.read:
                yield f"{host}: {_unread(setting)}"
            elif setting.name == NCCL_PLUGIN:
                yield f"{host}: {_plugin(setting)}"
            elif not is_of_ucx(setting.name):
                yield f"{host}: {_override(setting)}"
        if one.machine.ucx:
            yield from (f"{host}: {told}" for told in _split(one.machine.classes))


def _override(setting: Setting) -> str:
    who = (
        "NCCL gives it to all its communicators" if setting.name in NCCL else "all RDMA of the device has it"
    )
    return (
        f"{setting.name} is {setting.value} ({setting.where}); {who}, whatever class they ask for. A run"
        " here uses gloo over TCP, which does not read it"
    )


def _unread(setting: Setting) -> str:
    return (
        f"{setting.name!r} is set ({setting.where}), and NCCL does not read it: names of variables are in"
        " capitals, and spaces before or after a name in a file belong to it"
    )


def _plugin(setting: Setting) -> str:
    return (
        f"{setting.name} is {setting.value} ({setting.where}): this library gives NCCL its variables, and may"
        f" set {' or '.join(NCCL)}, which cannot be seen from outside"
    )


def _split(settings: Iterable[Setting]) -> Iterator[str]:
    """Whether UCX and NCCL send with different classes on this server."""
    read = {setting.name: setting for setting in settings if setting.read}
    nccl = read[NCCL[0]].value if NCCL[0] in read else _NCCL_DEFAULT
    of_ucx = [one for name, one in read.items() if is_of_ucx(name) and name.endswith("TRAFFIC_CLASS")]
    if UCX_CLASS not in read:
        of_ucx.append(Setting(name=UCX_CLASS, value="auto", where="default"))
    for one in of_ucx:
        used = _UCX_DEFAULT if one.value == "auto" else one.value
        if used != nccl:
            default = ", its default on RoCE v2" if one.value == "auto" else ""
            place = "" if one.where == "default" else f" ({one.name}, {one.where})"
            yield (
                f"UCX sends with class {used}{default}{place}, and NCCL with {nccl}: a program that uses both"
                " has its traffic in two queues already, so do not take it for one without levels"
            )
    for name, one in read.items():
        if is_of_ucx(name) and name.endswith("SL"):
            yield f"UCX sends with service level {one.value} ({name}, {one.where})"
