"""What was measured of a machine before an emulated run (`experiments.resolve.rehearsal`)."""

import msgspec


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine did in a rehearsal: delays in wall milliseconds, rates in Mb/s on the wire.

    `cpu_wait_ms` is the longest mean wait of a process for a CPU; None if the kernel does not count waits.
    `forwarded_mbps` arrived at each NIC while all sent at `offered_mbps`; None if nothing was sent. The
    percentiles are None if nothing waited.
    """

    permit_p50_ms: float | None
    permit_p99_ms: float | None
    late_p99_ms: float | None
    cpu_wait_ms: float | None
    forwarded_mbps: float | None
    offered_mbps: float
    cpu_idle: float
    policy: str

    def __str__(self) -> str:
        said = []
        if self.permit_p50_ms is not None and self.permit_p99_ms is not None:
            said.append(
                f"permits take {self.permit_p50_ms:.2g} ms (p50) and {self.permit_p99_ms:.2g} ms (p99)"
            )
        if self.late_p99_ms is not None:
            said.append(f"wake-ups are {self.late_p99_ms:.2g} ms late (p99)")
        if self.cpu_wait_ms is not None:
            said.append(f"a process waits {self.cpu_wait_ms:.2g} ms for its turns on a CPU (mean)")
        if self.forwarded_mbps is not None:
            said.append(
                f"{self.forwarded_mbps:.3g} Mb/s arrive per NIC when all send {self.offered_mbps:.3g} Mb/s"
            )
        said.append(f"{100 * self.cpu_idle:.0f} % of the CPU time is idle")
        return f"measured before the run, under {self.policy}: {', '.join(said)}"
