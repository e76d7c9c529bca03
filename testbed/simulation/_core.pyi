"""The compiled core of the simulator; the C++ is in `core/`."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from controller.flow import PortId

SOURCES: str
"""What `controller.compiled.digest_of` said of the C++ files when this was built."""

LEVELS: int

class Links:
    """The streams on ports of these capacities, in bytes per nanosecond (`core/links.hpp`).

    An argument that can be no such thing raises `ValueError`, a stream, port or level that there is not
    `IndexError`.
    """

    def __init__(
        self,
        capacity: Sequence[float],
        guarantee: float,
        bundled: bool = False,
        level_weights: Sequence[float] = (),
        ordered_ports: Sequence[int] = (),
    ) -> None: ...
    def __len__(self) -> int:
        """The number of streams."""

    def capacity(self, port: int) -> float:
        """Rate of the port with number `port`, in bytes per nanosecond."""

    def set_capacity(self, port: int, rate: float) -> None:
        """Give a port this rate from the next `settle` on. With 0, nothing passes."""

    def add(
        self,
        ports: Sequence[int],
        size: float,
        place: tuple[int, float],
        cap: float | None = None,
        weights: Sequence[float] | None = None,
        group: int = -1,
    ) -> int:
        """Add a stream of `size` bytes, above 0, over one or more different ports, and return its id.

        Its rate is at most `cap` bytes per nanosecond. With `weights`, it takes that many times its rate on
        each of the ports, like several connections that move in step. It begins at the next `settle`.
        With a `group`, the order of its place is that of the group.
        """

    def move(self, stream: int, place: tuple[int, float], cap: float | None = None, group: int = -1) -> None:
        """Give `stream` this place, cap and group from the next `settle` on."""

    def add_group(self, order: float) -> int:
        """Make a group of streams with one order, and return its number. Only for bundles."""

    def set_order(self, group: int, order: float) -> None:
        """Change the order of all streams of a group, from the next `settle` on."""

    def drop_group(self, group: int) -> None:
        """Forget a group, which may have no streams."""

    def next_end_ns(self) -> int | None:
        """When the next stream ends if nothing changes; None if none does. Call `settle` before."""

    def take_finished(self, now_ns: int) -> list[int]:
        """Remove and return the streams that have ended by `now_ns`, in order of addition."""

    def settle(self, now_ns: int) -> None:
        """Work out the rates that hold from `now_ns` on."""

    def rate(self, stream: int) -> float:
        """Rate of `stream` as of the last `settle`, in bytes per nanosecond at weight 1."""

    def left_bytes(self, now_ns: int) -> list[float]:
        """Bytes left of each stream, by its id, as of `now_ns`. Ids that are not in use have no meaning."""

    def sent_bytes(self, now_ns: int) -> npt.NDArray[np.float64]:
        """Bytes that each port has sent so far, by level, in an array of shape (ports, LEVELS).

        Call `settle` before, so that rates are up to date.
        """

    def port_busy_ns(self, now_ns: int, port: int) -> float:
        """Nanoseconds that `port` takes for the bytes left of its streams, including those just added."""

    @property
    def worked_out(self) -> tuple[int, int]:
        """How often rates have been worked out so far, and for how many streams in all."""

    @property
    def fullest(self) -> float:
        """The largest share of its capacity that the sharing has ever given any port to carry."""

    def fullest_now(self) -> float:
        """The largest share of its capacity that any port carries now, added up from its streams.

        Call `settle` before. The cost grows with the number of all streams.
        """

    def held_back(self, tolerance: float) -> int:
        """How many streams are slower than the levels and max-min fairness would have them.

        Call `settle` before. `tolerance` is relative. The cost grows with the number of all streams.
        """

    @property
    def unsettled(self) -> int:
        """How often the rates of weighted levels, or of ordered ports, did not settle: 0 if all are right."""

    def rows(self) -> int:
        """The largest id that any stream has had, plus 1."""

    def falsify(self, stream: int, factor: float) -> None:
        """Multiply the rate of `stream`, which no sharing would do. For tests of what notices it."""

class Options:
    """`testbed.job.SimulationOptions` and its `Overheads`, as far as the core reads them."""

    permit_ns: int
    permit_kept_ns: int
    transfer_ns: int
    collective_ns: int
    round_ns: int
    compute_ns: int
    progress_ns: int
    burst_bytes: int
    all_to_all_goodput: float
    exact: bool
    counts_bytes: bool
    lanes: bool
    by_flow: bool
    grouped: bool
    separate: bool
    bundled: bool
    groups: bool
    invariants: bool
    decisions: bool
    level_weights: Sequence[float]
    ordered_ports: Sequence[int]

class Faults:
    """What to break in a run, so that tests can see the invariants fail (`core/world.hpp`)."""

    size_factor: float
    rate_factor: float
    submit_late_ns: int
    lost_flow: str
    early_end: int
    past_act: int

class Core:
    """The event loop of a simulated run (`core/core.hpp`).

    `capacity` are the ports of the network in bytes per nanosecond, `links` the names of the topology's
    links, and `loads` the scheduler's `PortLoads` (None: no policy reads them). The core calls the methods
    of `host` (`testbed.simulation.host`).
    """

    def __init__(
        self,
        capacity: Sequence[float],
        guarantee: float,
        links: Sequence[str],
        options: Options,
        host: object,
        loads: object,
    ) -> None: ...
    def set_enums(self, stages: Sequence[object], kinds: Sequence[object]) -> None:
        """The members of `Stage` and `CollectiveKind`, in their order."""

    def add_group(self, name: str, ranks: Sequence[int]) -> None:
        """A process group with these ranks."""

    def add_route(self, path: Sequence[int], ports: Sequence[int], latency_ns: int) -> int:
        """A path over these links, on these ports of the network. Returns its number."""

    def set_share(self, port: int, share: float) -> None:
        """Let a port of the network carry this share of its rate from now on; 0: nothing passes."""

    def slow_down(self, rank: int, from_ns: int, to_ns: int | None, factor: float) -> None:
        """Let compute on a rank take `factor` times as long for a while (`workers.slowdown.Slowdown`).

        Those of a rank are added in order of time, before the run.
        """

    def at(self, time_ns: int, call: Callable[[], object]) -> None:
        """Call `call` at that moment, which is now or later."""

    def post_at(self, time_ns: int, transfer: object) -> None:
        """Submit a transfer at that moment."""

    def expect(self, plan: object, is_batch: bool) -> None:
        """Prepare for the transfers of a batch plan, or of a fetch plan."""

    def post(self, transfer: object) -> None:
        """Submit a transfer now. Whatever waits for it goes on when it has arrived."""

    def start(self, plan: object) -> None:
        """Hand a batch plan to its ranks."""

    def go_on(self, plan: object) -> None:
        """Let the ranks that paused in a batch plan go on."""

    def batch_started(self, batch: object) -> None:
        """Announce a batch to the scheduler."""

    def layer_advanced(self, batch: str, layer: int) -> None:
        """Tell the scheduler that a batch has reached a layer."""

    def left_on_ports(self, group: str) -> dict[PortId, int]:
        """Bytes that the flows of a `controller.policy.FlowGroup` have left now, by port."""

    def run(self) -> None:
        """Run until the host says that it has finished and nothing moves any more."""

    def settle(self) -> None:
        """Bring the rates of the links up to date."""

    def flush(self) -> None:
        """Give the host the rows that it does not have yet."""

    def busy_ns(self, port: int) -> float:
        """Nanoseconds that a port takes for the bytes left of its streams."""

    def sent_bytes(self) -> npt.NDArray[np.float64]:
        """Bytes that each port has sent so far, by level, in an array of shape (ports, LEVELS)."""

    def owed_bytes(self) -> npt.NDArray[np.float64]:
        """Bytes handed over for each port so far, without those that passed at once."""

    def names(self, begin: int) -> list[str]:
        """The names that rows refer to by number, from number `begin` on."""

    def paths(self, begin: int) -> list[list[int]]:
        """The paths that rows refer to by number, from number `begin` on, as numbers of links."""

    @property
    def ports(self) -> int:
        """The number of ports of the network."""

    @property
    def now_ns(self) -> int:
        """Model time."""

    @property
    def events(self) -> int:
        """Acts of the agenda and ends of streams so far."""

    @property
    def messages(self) -> int:
        """Messages handed over so far, without empty ones."""

    @property
    def moving(self) -> int:
        """Nanoseconds that all streams together have been on their way."""

    @property
    def submitted(self) -> int:
        """Flows submitted so far."""

    @property
    def settlings(self) -> int:
        """How often rates have been worked out so far."""

    @property
    def worked_out(self) -> int:
        """For how many streams rates have been worked out, in all."""

    @property
    def fullest(self) -> float:
        """The largest share of its capacity that any port ever carried."""

    @property
    def slow_streams(self) -> int:
        """Streams slower than max-min fairness would have them, over all samples.

        Each moment at which the rates of weighted levels, or of ordered ports, did not settle counts as one.
        """

    @property
    def too_fast(self) -> int:
        """Flows that were faster than the narrowest port of their path."""

    @property
    def disorder(self) -> int:
        """Flows whose times are out of order."""

    @property
    def back(self) -> int:
        """How often the clock was to go back."""

    @property
    def late(self) -> int:
        """Acts that were planned for a time that had passed."""

    @property
    def faults(self) -> Faults:
        """What to break."""
