"""A fabric that sends every flow of a micro workload alone, at the NIC's rate, and `mfs` in this process."""

import os
import sys
from collections.abc import Callable

import pytest

from controller.flow import Level
from experiments.cli import app as cli
from testbed.fabric import Requirement, RunProgress
from testbed.fabrics import FABRICS
from testbed.job import Job, MicroFlow
from testbed.record import Check, Fidelity, FlowRow, RunRecord

TWO_FLOWS = ("run", "two-flows", "--fabric", "toy", "--policy", "fair")
"""The command line of most tests that use it."""


class ToyFabric:
    """Each run raises `trouble`, or only those of the policy `in_policy`. `ran` has the policies and seeds
    of the runs."""

    name = "toy"

    def __init__(
        self,
        needs: tuple[Requirement, ...] = (),
        trouble: BaseException | None = None,
        in_policy: str | None = None,
    ) -> None:
        self._needs = needs
        self.trouble = trouble
        self._in_policy = in_policy
        self.ran: list[tuple[str, int]] = []

    def requirements(self) -> list[Requirement]:
        return list(self._needs)

    def run(self, job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
        progress(RunProgress(phase="sending", done=0, total=len(job.flows)))
        os.write(1, b"noise of some tool\n")
        self.ran.append((job.policy, job.seed))
        if self.trouble is not None and self._in_policy in (None, job.policy):
            raise self.trouble
        flows = tuple(_sent_alone(flow, job) for flow in job.flows)
        check = Check(name="rate", value=1.0, bound=">= 0.93", unit="", ok=True, advice="")
        return RunRecord(
            policy=job.policy,
            fabric=self.name,
            requests=(),
            flows=flows,
            decisions=(),
            spans=(),
            links=(),
            progress=(),
            permit_latency_ms=(0.5,),
            fidelity=Fidelity(faithful=True, checks=(check,)),
            facts={},
            queues={},
            duration_ns=max(flow.finish_ns for flow in flows),
            wall_s=0.1,
        )


def _sent_alone(flow: MicroFlow, job: Job) -> FlowRow:
    transfer = flow.transfer
    src, dst = job.placement.server_of(transfer.src), job.placement.server_of(transfer.dst)
    path = job.topology.paths(src, dst)[0]
    took_ns = transfer.size_bytes * 8 * 10**9 // job.topology.link(path[0]).bps
    return FlowRow(
        id=transfer.id,
        stage=transfer.stage,
        src=transfer.src,
        dst=transfer.dst,
        src_server=src,
        dst_server=dst,
        size_bytes=transfer.size_bytes,
        batch=None,
        request=None,
        layer=None,
        coflow=None,
        deadline_ns=transfer.deadline_ns,
        submit_ns=flow.start_ns,
        permit_ns=flow.start_ns,
        lane_wait_ns=0,
        finish_ns=flow.start_ns + took_ns,
        level_first=Level.P1,
        level_last=Level.P1,
        promotions=0,
        path=path,
        verified=None,
    )


class Mfs:
    """Runs `mfs` in this process, and keeps its output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self._monkeypatch.setattr(sys, "argv", ["mfs", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        self.out, self.err = self._capfd.readouterr()
        return int(ended.value.code or 0)

    def fabric(self, fabric: ToyFabric) -> None:
        self._monkeypatch.setitem(FABRICS, "toy", lambda: fabric)
