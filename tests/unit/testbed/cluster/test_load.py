"""What agents say of their servers, added up: idle time, segments, and whether anything moves."""

import msgspec

from testbed.cluster.load import MOVES, LoadMeter
from workers.agent_protocol import Here, Load, Machine

MACHINE = Machine(mfs="", torch="", python="", kernel="", cores=1, gpus=0, mtus={})
NICS = {"a": "data", "b": "data"}


def beat(
    host: str, *, idle: float = 0.5, sent: int = 0, again: int = 0, data: int = 0, other: int = 0
) -> Here:
    load = Load(idle=idle, sent=sent, again=again, received={"data": data, "mgmt": other})
    return Here(host=host, local_rank=0, job="", source="", machine=MACHINE, load=load)


def test_each_beat_counts_once_and_segments_count_from_the_beginning() -> None:
    meter = LoadMeter({"a/0": beat("a", sent=100, again=7)}, NICS)
    first = {"a/0": beat("a", idle=0.2, sent=150, again=8)}
    meter.take(first)
    meter.take(first)
    meter.take({"a/0": beat("a", idle=0.6, sent=200, again=9)})
    servers = meter.servers(1500)
    assert servers.idle == {"a": 0.4}
    assert servers.segments == {"a": (100, 2)}
    assert servers.mtu == 1500


def test_only_data_moves_a_run() -> None:
    """The control plane is on another interface, or makes few bytes on this one."""
    meter = LoadMeter({"a/0": beat("a"), "b/0": beat("b")}, NICS)
    meter.take({"a/0": beat("a", data=MOVES), "b/0": beat("b", other=100 * MOVES)})
    assert meter.moved == 0
    meter.take({"a/0": beat("a", data=2 * MOVES + 1), "b/0": beat("b", other=100 * MOVES)})
    assert meter.moved == 1


def test_agents_of_one_server_are_several_and_a_new_one_is_taken_in() -> None:
    meter = LoadMeter({"a/0": beat("a")}, NICS)
    second = msgspec.structs.replace(beat("a", idle=0.7), local_rank=1)
    meter.take({"a/0": beat("a", idle=0.5), "a/1": second})
    assert round(meter.servers(1500).idle["a"], 6) == 0.6
