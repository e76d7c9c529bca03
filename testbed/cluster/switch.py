"""Commands that make hosts and switches sort packets by the DSCPs of an inventory. Pure; untested.

Level CONTROL (0) is the most urgent, and becomes priority 7, whose strict queue goes first. The syntax is
that of public documentation, and none of it was run on a switch by the authors.
"""

import shlex
from collections.abc import Iterator, Sequence

from controller.flow import Level

UNTESTED = "untested: from public documentation; check on one port before you apply it everywhere"


def _priorities(dscp: Sequence[int]) -> Iterator[tuple[Level, int, int]]:
    """Yield each level, its DSCP and its priority: the higher, the more urgent."""
    for level in Level:
        yield level, dscp[level], 7 - level


def host_commands(dscp: Sequence[int], nics: Sequence[str]) -> list[str]:
    """For NVIDIA NICs: `mlnx_qos`, on every server."""
    lines = []
    for nic in map(shlex.quote, dict.fromkeys(nics)):
        lines.append(f"mlnx_qos -i {nic} --trust dscp")
        lines += [f"mlnx_qos -i {nic} --dscp2prio set,{code},{prio}" for _, code, prio in _priorities(dscp)]
        lines.append(f"mlnx_qos -i {nic} -p 0,1,2,3,4,5,6,7")
        lines.append(f"mlnx_qos -i {nic} --tsa {','.join(['strict'] * 8)}")
    return lines


def nvue_commands(dscp: Sequence[int]) -> list[str]:
    """For Cumulus Linux with NVUE."""
    lines = ["nv set qos mapping mfs trust l3"]
    for _, code, prio in _priorities(dscp):
        lines += [
            f"nv set qos mapping mfs dscp {code} switch-priority {prio}",
            f"nv set qos egress-queue-mapping default-global switch-priority {prio} traffic-class {prio}",
            f"nv set qos egress-scheduler mfs traffic-class {prio} mode strict",
        ]
    return [*lines, "nv set interface swp1-64 qos mapping profile mfs", "nv config apply"]


def sonic_config(dscp: Sequence[int], ports: Sequence[str]) -> dict[str, dict[str, dict[str, str]]]:
    """For SONiC: parts of `config_db.json`, for `sonic-cfggen -j FILE --write-to-db`."""
    return {
        "SCHEDULER": {"mfs.strict": {"type": "STRICT"}},
        "DSCP_TO_TC_MAP": {"MFS": {str(code): str(prio) for _, code, prio in _priorities(dscp)}},
        "TC_TO_QUEUE_MAP": {"MFS": {str(prio): str(prio) for _, _, prio in _priorities(dscp)}},
        "QUEUE": {f"{port}|{queue}": {"scheduler": "mfs.strict"} for port in ports for queue in range(8)},
        "PORT_QOS_MAP": {port: {"dscp_to_tc_map": "MFS", "tc_to_queue_map": "MFS"} for port in ports},
    }
