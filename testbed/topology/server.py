"""The parts of a server, GPUs, NICs and an NVSwitch, and which of them are nodes of the topology."""

from collections.abc import Mapping

import msgspec


class ServerShape(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of every server of a topology.

    - `gpus`: number of GPUs; None: as many as there are ranks on the server.
    - `nics`: number of NICs. With fewer NICs than GPUs, GPU g uses NIC `g * nics // gpus`. Otherwise each
      GPU has `nics / gpus` NICs of its own.
    - `nvlink_bps`: rate between a GPU and the server's NVSwitch, in model bits/s each way.
    - `pcie_bps`: the same between a GPU and its NIC, or all its NICs together. With a rate of None there is
      no such link, and no traffic waits for it.

    A *plain* server has one NIC and no links inside. It is a single node, such as `h1`. Any other server
    has a node for each part: `h1.gpu0`, `h1.nic0`, `h1.nvs`.

    Raises `ValueError` if a server that is not plain has no number of GPUs, and if some of its NICs would
    have no GPU.
    """

    gpus: int | None = None
    nics: int = 1
    nvlink_bps: int | None = None
    pcie_bps: int | None = None

    def __post_init__(self) -> None:
        if self.gpus is None and not self.plain:
            raise ValueError("a server with several NICs or links inside needs a number of GPUs")
        if self.gpus is None:
            return
        if self.nics < 1 or (self.nics > self.gpus and self.nics % self.gpus):
            raise ValueError(
                f"{self.nics} NICs for {self.gpus} GPUs: there must be 1 to {self.gpus}, or equally many for"
                " each GPU"
            )

    @property
    def plain(self) -> bool:
        """One NIC and no links inside: the server is a single node."""
        return self.nics == 1 and self.nvlink_bps is None and self.pcie_bps is None

    @property
    def separate_gpus(self) -> int:
        """The number of GPUs that are separate; 1 for a plain server, whose GPUs share its node."""
        return 1 if self.plain or self.gpus is None else self.gpus

    @property
    def nics_of_a_gpu(self) -> int:
        """The number of NICs that a GPU uses."""
        return 1 if self.gpus is None else max(1, self.nics // self.gpus)

    def nics_of(self, gpu: int) -> range:
        """Return the numbers of the NICs that GPU `gpu` uses."""
        first = 0 if self.gpus is None else gpu * self.nics // self.gpus
        return range(first, first + self.nics_of_a_gpu)

    def gpu_of(self, nic: int) -> int:
        """Return the GPU that has NIC `nic` for itself, if each has NICs of its own."""
        return nic // self.nics_of_a_gpu

    def nic(self, server: str, number: int) -> str:
        """Return the node of NIC `number` of `server`."""
        return server if self.plain else f"{server}.nic{number}"

    def endpoint(self, server: str, gpu: int) -> str:
        """Return the node of GPU `gpu` of `server`: the GPU itself if it has links or NICs, else its NIC."""
        if self.nvlink_bps is None and self.pcie_bps is None and self.nics_of_a_gpu == 1:
            return self.nic(server, self.nics_of(gpu)[0])
        return f"{server}.gpu{gpu}"

    def pcie_end(self, server: str, gpu: int) -> str:
        """Return the node at the other end of a GPU's PCIe link: its NIC, or what its NICs share."""
        nics = self.nics_of(gpu)
        return self.nic(server, nics[0]) if len(nics) == 1 else f"{server}.pcie{gpu}"

    def nvswitch(self, server: str) -> str:
        return f"{server}.nvs"


class NicRates(msgspec.Struct, frozen=True, kw_only=True):
    """The rates of NICs, in model bits/s each way.

    `usual[i]` is the rate of NIC i of a usual server, by which the links between switches are sized.
    `others` has the rates of all NICs of each server that differs.
    """

    usual: tuple[int, ...]
    others: Mapping[str, tuple[int, ...]] = {}

    def of(self, server: str, number: int) -> int:
        return self.others.get(server, self.usual)[number]

    @property
    def total(self) -> int:
        """What a usual server can send at."""
        return sum(self.usual)


def nic_rates(bps: int | NicRates, nics: int) -> NicRates:
    """`bps` as the rates of `nics` NICs of each server. Raises `ValueError` if there are rates for others."""
    if isinstance(bps, int):
        return NicRates(usual=(bps,) * nics)
    for rates in (bps.usual, *bps.others.values()):
        if len(rates) != nics:
            raise ValueError(f"{len(rates)} rates for {nics} NICs of a server")
    return bps
