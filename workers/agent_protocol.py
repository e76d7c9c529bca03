"""Messages between the coordinator and the agents on real servers. An agent starts a rank for each job.

`*_wall_ns` is CLOCK_MONOTONIC of the machine that says it.
"""

import msgspec

from workers.protocol import RankConfig
from workers.traffic_classes import Setting

BEAT_S = 1.0
"""Wall seconds between two signs of life, in both directions."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How the server is doing: the idle share of its CPU time since the last beat, its TCP segments sent and
    sent again since it was started, and the bytes that each of its interfaces has received since then."""

    idle: float
    sent: int
    again: int
    received: dict[str, int]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a server has: versions, the number of its CUDA devices, the MTU of each of its interfaces, the
    traffic classes of RDMA that are set there, and whether UCX is installed."""

    mfs: str
    torch: str
    python: str
    kernel: str
    cores: int
    gpus: int
    mtus: dict[str, int]
    classes: tuple[Setting, ...] = ()
    ucx: bool = False


class Here(msgspec.Struct, frozen=True, kw_only=True, tag="here"):
    """An agent is there. It says so every second, from its start on.

    `host` is the name of its server, `local_rank` its number there. `job` is what it was started for,
    `source` a digest of its code: the coordinator refuses an agent of another job or with other code.
    `heard` are the addresses on the data network from which it has heard since it said so last
    (`workers.neighbours`).
    """

    host: str
    local_rank: int
    job: str
    source: str
    machine: Machine
    load: Load
    heard: tuple[str, ...] = ()


class Pong(msgspec.Struct, frozen=True, kw_only=True, tag="pong"):
    """The answer to a `Ping`, at once. `wall_ns` is the agent's clock."""

    number: int
    wall_ns: int


class RankEnded(msgspec.Struct, frozen=True, kw_only=True, tag="rank_ended"):
    """The rank that this agent had started has ended; `how` is empty if it was to end.

    `killed` is set if a signal has ended it.
    """

    rank: int
    how: str
    killed: bool = False


class AgentLeft(msgspec.Struct, frozen=True, kw_only=True, tag="left"):
    """The agent ends, and its rank with it: somebody has told it to (torchrun, Slurm, a person)."""

    why: str


class PairSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What one server has got from another: the DSCP that datagrams of each mark arrived with, and the bytes
    of a TCP connection with the wall seconds that they took."""

    dscps: dict[int, int]
    bytes: int
    seconds: float


class PairListening(msgspec.Struct, frozen=True, kw_only=True, tag="pair_listening"):
    """The receiver of pair `number` listens."""

    number: int
    port: int


class PairResult(msgspec.Struct, frozen=True, kw_only=True, tag="pair_result"):
    """An end of pair `number` is through. The receiver has `seen` something; `trouble` is what went wrong."""

    number: int
    seen: PairSeen | None
    trouble: str = ""


class ReceivePair(msgspec.Struct, frozen=True, kw_only=True, tag="receive_pair"):
    """Listen at `address` for the sender of pair `number`, which sends for `seconds`."""

    number: int
    address: str
    seconds: float


class SendPair(msgspec.Struct, frozen=True, kw_only=True, tag="send_pair"):
    """Send from `own` to the receiver of pair `number`: datagrams with each of `dscps`, then bytes."""

    number: int
    own: str
    address: str
    port: int
    dscps: tuple[int, ...]
    seconds: float


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag="ping"):
    number: int


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """The coordinator is there. It says so every second; an agent that does not hear it gives up."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The agent is not wanted, and should end. `reason` says what is wrong."""

    reason: str


class RunRank(msgspec.Struct, frozen=True, kw_only=True, tag="run"):
    """Start this rank. From now on, exchange datagrams with the servers at the addresses `neighbours` on the
    data network. One agent of each server does that."""

    config: RankConfig
    neighbours: tuple[str, ...] = ()


class StopRank(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """End the rank, if there is one, however far it is."""


class Dismissed(msgspec.Struct, frozen=True, kw_only=True, tag="dismissed"):
    """There are no more jobs: end. `failed` says that the last one failed."""

    failed: bool


FromAgent = Here | Pong | RankEnded | AgentLeft | PairListening | PairResult
ToAgent = Ping | Beat | Refused | RunRank | StopRank | ReceivePair | SendPair | Dismissed

encode = msgspec.msgpack.Encoder().encode
decode_from_agent = msgspec.msgpack.Decoder(FromAgent).decode
decode_to_agent = msgspec.msgpack.Decoder(ToAgent).decode
