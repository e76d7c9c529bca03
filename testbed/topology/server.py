"""The parts of a server, GPUs, NICs and an NVSwitch, and which of them are nodes of the topology."""

import msgspec


class ServerShape(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of every server of a topology.

    - `gpus`: number of GPUs; None: as many as there are ranks on the server.
    - `nics`: number of NICs. GPU g uses NIC `g * nics // gpus`.
    - `nvlink_bps`: rate between a GPU and the server's NVSwitch, in model bits/s each way.
    - `pcie_bps`: the same between a GPU and its NIC. With a rate of None there is no such link, and no
      traffic waits for it.

    A *plain* server has one NIC and no links inside. It is a single node, such as `h1`. Any other server
    has a node for each part: `h1.gpu0`, `h1.nic0`, `h1.nvs`.

    Raises `ValueError` if a server that is not plain has no number of GPUs, and unless 1 <= nics <= gpus.
    """

    gpus: int | None = None
    nics: int = 1
    nvlink_bps: int | None = None
    pcie_bps: int | None = None

    def __post_init__(self) -> None:
        if self.gpus is None and not self.plain:
            raise ValueError("a server with several NICs or links inside needs a number of GPUs")
        if self.gpus is not None and not 1 <= self.nics <= self.gpus:
            raise ValueError(f"{self.nics} NICs for {self.gpus} GPUs: there must be 1 to {self.gpus}")

    @property
    def plain(self) -> bool:
        """One NIC and no links inside: the server is a single node."""
        return self.nics == 1 and self.nvlink_bps is None and self.pcie_bps is None

    @property
    def separate_gpus(self) -> int:
        """The number of GPUs that are separate; 1 for a plain server, whose GPUs share its node."""
        return 1 if self.plain or self.gpus is None else self.gpus

    def nic_of(self, gpu: int) -> int:
        """Return the number of the NIC that GPU `gpu` uses."""
        return 0 if self.gpus is None else gpu * self.nics // self.gpus

    def nic(self, server: str, number: int) -> str:
        """Return the node of NIC `number` of `server`."""
        return server if self.plain else f"{server}.nic{number}"

    def endpoint(self, server: str, gpu: int) -> str:
        """Return the node of GPU `gpu` of `server`: the GPU itself if it has links, else its NIC."""
        if self.nvlink_bps is None and self.pcie_bps is None:
            return self.nic(server, self.nic_of(gpu))
        return f"{server}.gpu{gpu}"

    def nvswitch(self, server: str) -> str:
        return f"{server}.nvs"
