"""What is inside a server: GPUs, NICs, an NVSwitch, and which of them are nodes of the topology."""

import msgspec


class ServerShape(msgspec.Struct, frozen=True, kw_only=True):
    """The inside of every server of a topology.

    Server `h1` has `gpus` GPUs and `nics` NICs; GPU g uses NIC `g * nics // gpus`. `nvlink_bps` is what a
    GPU and the server's NVSwitch can send each other, in model bits per second each way; `pcie_bps` is
    the same for a GPU and its NIC. `None` for a rate: no such link, it is not what traffic waits for.
    `None` for `gpus`: as many as ranks are placed there.

    A *plain* server has one NIC and no links inside. It is one node, `h1`, NIC and all GPUs together.
    Any other has a node for each part: `h1.gpu0`, `h1.nic0`, `h1.nvs`.

    Raises `ValueError` for a server that is not plain without a number of GPUs, and for NICs that no
    GPU uses.
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
        """The GPUs that are told apart; 1 for a plain server, whose GPUs share its node."""
        return 1 if self.plain or self.gpus is None else self.gpus

    def nic_of(self, gpu: int) -> int:
        """The number of the NIC that GPU number `gpu` uses."""
        return 0 if self.gpus is None else gpu * self.nics // self.gpus

    def nic(self, server: str, number: int) -> str:
        """The node where NIC `number` of `server` is."""
        return server if self.plain else f"{server}.nic{number}"

    def endpoint(self, server: str, gpu: int) -> str:
        """The node where GPU `gpu` of `server` is: the GPU itself where it has links, else its NIC."""
        if self.nvlink_bps is None and self.pcie_bps is None:
            return self.nic(server, self.nic_of(gpu))
        return f"{server}.gpu{gpu}"

    def nvswitch(self, server: str) -> str:
        return f"{server}.nvs"
