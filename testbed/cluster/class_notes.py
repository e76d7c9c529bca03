"""What `mfs cluster doctor` says of traffic classes that are set on servers from outside. Pure.

They concern NCCL and UCX over RDMA, which runs here do not use. They are told so that nobody takes a cluster
for one without classes, and because they would silently beat the classes of communicators.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from workers.agent_protocol import Here
from workers.traffic_classes import NCCL, UCX, Setting

_UCX_DEFAULT: Final = 106
"""On RoCE v2, if UCX_IB_TRAFFIC_CLASS is `auto` or not set."""

_NCCL_DEFAULT: Final = 0


def class_notes(here: Mapping[str, Here]) -> Iterator[str]:
    """Yield a sentence for each class on a server that would override another, or split its traffic."""
    for host, one in here.items():
        for setting in one.machine.classes:
            if setting.name not in UCX:
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


def _split(settings: Iterable[Setting]) -> Iterator[str]:
    """Whether UCX and NCCL send with different classes on this server."""
    values = {setting.name: setting.value for setting in settings}
    ucx, nccl = values.get(UCX[0], "auto"), values.get(NCCL[0], str(_NCCL_DEFAULT))
    used = str(_UCX_DEFAULT) if ucx == "auto" else ucx
    if used != nccl:
        default = ", its default on RoCE v2" if ucx == "auto" else ""
        yield (
            f"UCX sends with class {used}{default}, and NCCL with {nccl}: a program that uses both has its"
            " traffic in two queues already, so do not take it for one without levels"
        )
