"""The sections of a scenario for the work: requests with their SLOs, or flows."""

import enum
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from experiments.scenario.micro_flows import FlowSpec
from experiments.scenario.section import ProblemKind, Section, refusal
from experiments.trace_formats.formats import TraceFormat
from testbed.serving.slo import DEFAULT_CLASS, Reference


class WorkloadKind(enum.StrEnum):
    CONVERSATION = "conversation"
    AGENT = "agent"
    MOONCAKE = "mooncake"
    MOONCAKE_DELTA = "mooncake_delta"
    AZURE = "azure"
    BURSTGPT = "burstgpt"
    BAILIAN = "bailian"
    VIDUR = "vidur"
    SPLITWISE = "splitwise"
    LLMSERVINGSIM = "llmservingsim"
    AIBRIX = "aibrix"
    SHAREGPT = "sharegpt"
    REQUESTS = "requests"
    FLOWS = "flows"
    COFLOWS = "coflows"


SYNTHETIC = (WorkloadKind.CONVERSATION, WorkloadKind.AGENT)
"""Kinds that are generated from the seed."""

MICRO = (WorkloadKind.FLOWS, WorkloadKind.COFLOWS)
"""Kinds that are flows, without a serving system."""

TRACES = {WorkloadKind(format.value): format for format in TraceFormat}
"""Kinds that are read from a trace of requests, with the format of the trace."""


class Arrivals(enum.StrEnum):
    TRACE = "trace"
    POISSON = "poisson"
    BURSTY = "bursty"


class BackgroundPairs(enum.StrEnum):
    OFFLOAD = "offload"
    MIGRATE = "migrate"


class BackgroundSection(Section):
    gbps: float | None = Field(
        default=None,
        ge=0.001,
        le=10_000,
        description="what each sender sends beside requests if nothing delays it, Gb/s; null: nothing",
    )
    transfer_mb: float = Field(
        default=64.0, ge=0.001, le=1e6, description="size of a background transfer, 10^6 bytes"
    )
    pairs: BackgroundPairs = Field(
        default=BackgroundPairs.OFFLOAD,
        description="offload: from each prefill rank to a decode rank; migrate: from each decode rank to the "
        "next",
    )


class WorkloadSection(Section):
    kind: WorkloadKind = Field(
        default=WorkloadKind.CONVERSATION,
        description="conversation and agent are generated from the seed; flows is the micro workload below; "
        "coflows are shuffles read from path; all others are formats of traces of requests, read from path",
    )
    path: str | None = Field(
        default=None,
        description="trace file, relative to this file (from --set: to the working directory); "
        "with a generated kind, the kind is detected from the file's first line",
    )
    requests: int = Field(default=48, ge=1, le=10_000_000, description="requests of the run")
    rate: float | None = Field(
        default=None, ge=1e-6, le=1e6, description="arrivals, requests/s (only one of rate, load, time_scale)"
    )
    load: float | None = Field(
        default=0.7,
        ge=1e-3,
        le=100,
        description="arrivals, as a share of the cluster's estimated capacity "
        "(only one of rate, load, time_scale)",
    )
    time_scale: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="seconds that a second of the trace takes (only one of rate, load, time_scale)",
    )
    arrivals: Arrivals = Field(
        default=Arrivals.TRACE,
        description="trace: as in the trace, stretched to rate or load, or by time_scale; poisson: random, "
        "at rate or load; bursty: random with bursts, at rate or load; a generated workload is poisson "
        "unless it is bursty",
    )
    dispersion: float | None = Field(
        default=None,
        ge=1.001,  # closer to 1, bursts are so short that a gap between requests has millions of them
        le=1e6,
        description="arrivals bursty: variance of the number of arrivals in long windows, divided by its "
        "mean; 1 would be poisson",
    )
    burst_s: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="arrivals bursty: mean length of a burst, seconds; null: so long that half of the time "
        "is in bursts",
    )
    spread_ticks: bool = Field(
        default=True, description="spread the arrivals of a trace with a coarse clock inside its ticks"
    )
    slo_class: str = Field(
        default=DEFAULT_CLASS,
        min_length=1,
        alias="class",
        description="SLO class of the requests, a key of slo.classes",
    )
    class_from: str | None = Field(
        default=None,
        min_length=1,
        description="column of the trace whose value is a request's SLO class, instead of class: Model or "
        "Log Type of burstgpt, type or turn of bailian, application_id of splitwise, a label of requests; a "
        "class that is not in slo.classes has the default SLO",
    )
    warmup: int = Field(
        default=0,
        ge=0,
        le=10_000_000,
        description="requests at the beginning of the run that are served but count in no measure",
    )
    skip: int = Field(default=0, ge=0, description="rows of the trace to leave out at its start")
    flows: tuple[FlowSpec, ...] = Field(
        default=(),
        description="kind flows: transfers between servers, each {id, src, dst, bytes, start_s, "
        "stage: S1|S2|S3, deadline_s, layer, batch}; times in model seconds from the start",
    )
    background: BackgroundSection = Field(
        default=BackgroundSection(), description="transfers beside those of requests, for which nothing waits"
    )
    coflows: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="kind coflows: number of coflows to take from the trace; null: all",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "WorkloadSection":
        given = [k for k in ("rate", "load", "time_scale") if getattr(self, k) is not None]
        if len(given) > 1:
            raise refusal(f"workload.{given[1]}", f"only one of {' and '.join(given)} may be given")
        if self.coflows is not None and self.kind is not WorkloadKind.COFLOWS:
            raise refusal("workload.coflows", f"applies to kind coflows only, not {self.kind}")
        self._check_requests_only()
        if self.kind is WorkloadKind.FLOWS:
            if not self.flows:
                raise refusal("workload.kind", "flows needs at least one flow in workload.flows")
            if self.path is not None:
                raise refusal("workload.path", "kind flows reads no trace")
            return self
        if self.flows:
            raise refusal("workload.flows", f"applies to kind flows only, not {self.kind}")
        if self.kind in (*TRACES, WorkloadKind.COFLOWS) and self.path is None:
            raise refusal("workload.kind", f"{self.kind} needs workload.path, a trace file")
        if self.kind is WorkloadKind.COFLOWS:
            if self.rate is not None:
                raise refusal("workload.rate", "is for requests; coflows arrive by workload.time_scale")
            return self
        if self.arrives_at_random and self.rate is None and self.load is None:
            if self.time_scale is not None:
                random = f"the arrivals of kind {self.kind}" if self.path is None else "random arrivals"
                raise refusal(
                    "workload.time_scale", f"stretches a trace; {random} need workload.load or workload.rate"
                )
            raise refusal("workload.load", "random arrivals need a load or a rate")
        if self.warmup >= self.requests:
            raise refusal(
                "workload.warmup",
                f"{self.warmup} requests warm up: at least one more is needed to measure",
                requests=self.requests,
            )
        return self

    def _check_requests_only(self) -> None:
        """Refuse keys that apply only to requests, or only to some kinds of arrivals."""
        if self.is_micro:
            for key in ("warmup", "class_from"):
                if getattr(self, key):
                    raise refusal(f"workload.{key}", f"is for requests, and kind {self.kind} has none")
        bursty = self.arrivals is Arrivals.BURSTY
        if bursty and self.dispersion is None:
            raise refusal("workload.dispersion", "arrivals: bursty needs it: how bursty they are")
        for key in ("dispersion", "burst_s"):
            if getattr(self, key) is not None and not bursty:
                raise refusal(f"workload.{key}", f"applies to arrivals: bursty only, not {self.arrivals}")
        if self.class_from is not None and self.path is None:
            raise refusal("workload.class_from", "names a column of a trace, and there is no workload.path")
        if self.class_from is not None and self.slo_class != DEFAULT_CLASS:
            raise refusal("workload.class", "only one of class and class_from may be given")

    @property
    def is_micro(self) -> bool:
        """Whether the work is flows, without a serving system."""
        return self.kind in MICRO

    @property
    def arrives_at_random(self) -> bool:
        """Whether arrivals are drawn: there is no trace, or its arrivals are not wanted."""
        return self.path is None or self.arrivals is not Arrivals.TRACE


class SloClass(Section):
    multiple: float | None = Field(default=None, gt=0, le=1e6)
    absolute_s: float | None = Field(default=None, gt=0, le=1e6)

    @model_validator(mode="after")
    def _exactly_one(self) -> "SloClass":
        if (self.multiple is None) == (self.absolute_s is None):
            raise PydanticCustomError(ProblemKind.SLO.value, "needs exactly one of multiple and absolute_s")
        return self


class SloSection(Section):
    multiple: float | None = Field(
        default=3.0,
        gt=0,
        le=1e6,
        description="TTFT allowed, as a multiple of the TTFT on an idle cluster "
        "(only one of multiple, absolute_s)",
    )
    absolute_s: float | None = Field(
        default=None, gt=0, le=1e6, description="TTFT allowed, seconds (only one of multiple, absolute_s)"
    )
    reference: Reference = Field(
        default=Reference.REQUEST,
        description="which unloaded TTFT a multiple multiplies: that of the request, or the mean of all",
    )
    classes: dict[Annotated[str, StringConstraints(min_length=1)], SloClass] = Field(
        default={}, description="other SLOs by class, e.g. {interactive: {absolute_s: 1.5}}"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "SloSection":
        if (self.multiple is None) == (self.absolute_s is None):
            raise refusal("slo.absolute_s", "exactly one of multiple and absolute_s must be given")
        if DEFAULT_CLASS in self.classes:
            raise refusal("slo.classes.default", "the default class is slo.multiple or slo.absolute_s itself")
        return self
