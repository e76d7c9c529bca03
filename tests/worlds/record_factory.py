"""Realistic run records, made from a seed, to try reports, traces and tables on.

The numbers are drawn, not simulated; only their shape matters. There are eight prefill ranks in two units
on eight servers, two decode workers, a star of 50 Gb/s links, and 40 requests in batches of two.
"""

import random
from itertools import count

from result_rows import MS

from controller.flow import Decision, Level, Stage
from experiments.results.limits import Resources
from testbed.record import (
    CacheRow,
    Check,
    Fidelity,
    FlowRow,
    LinkSample,
    ProgressRow,
    RequestRow,
    RequestStatus,
    RunRecord,
    SpanRow,
)

UNITS = {"p0": (0, 1, 2, 3), "p1": (4, 5, 6, 7)}
DECODE = (8, 9)
RESOURCES = Resources(
    prefill_gpus=8,
    link_bps={name: 50_000_000_000 for i in range(1, 11) for name in (f"h{i}->s1", f"s1->h{i}")},
    bytes_scale=0.001,
)


def server(rank: int) -> str:
    return f"h{rank + 1}"


def path(src: int, dst: int) -> tuple[str, ...]:
    return (f"{server(src)}->s1", f"s1->{server(dst)}")


RATE = Check(name="link rate delivered", value=0.97, bound=">= 0.93", unit="", ok=True, advice="")
NO_HEADROOM = Check(
    name="CPU headroom",
    value=0.04,
    bound=">= 0.10",
    unit="",
    ok=False,
    advice="Raise scale.time_dilation.",
)


def faithful() -> Fidelity:
    return Fidelity(faithful=True, checks=(RATE,))


def unfaithful() -> Fidelity:
    return Fidelity(faithful=False, checks=(RATE, NO_HEADROOM))


class _Run:
    """Rows of one run while they are being drawn."""

    def __init__(self, seed: int, promotes: bool) -> None:
        self.draw = random.Random(seed)
        self.promotes = promotes
        self.ids = count()
        self.flows: list[FlowRow] = []
        self.decisions: list[Decision] = []
        self.spans: list[SpanRow] = []
        self.requests: list[RequestRow] = []

    def flow(
        self,
        stage: Stage,
        src: int,
        dst: int,
        start: int,
        took: int,
        *,
        size: int,
        batch: str,
        layer: int,
        request: int | None = None,
        coflow: str | None = None,
        deadline: int | None = None,
        ports: tuple[str, ...] | None = None,
    ) -> int:
        """Add a flow and its decisions; return when it finished."""
        id = f"{stage.value}.{batch}.l{layer}.{next(self.ids)}"
        ladder = [Level.P3]
        if self.promotes and stage is Stage.KV_REUSE:
            ladder = [Level.P5, Level.P4, Level.P3][-(1 + layer % 3) :]
        elif self.promotes and stage is Stage.P2D:
            ladder = [Level.P6, Level.P5, Level.P1][: self.draw.choice((1, 1, 2, 3))]
        elif self.promotes:
            ladder = [Level.P2]
        for i, level in enumerate(ladder):
            urgency = f"MLU {0.125 * 2**i:.3f}"
            self.decisions.append(
                Decision(
                    time_ns=start + took * i // len(ladder),
                    flow=id,
                    level_from=ladder[i - 1] if i else None,
                    level_to=level,
                    reason=urgency + (" >= 0.125" if i else ": starts here"),
                )
            )
        permit = start + min(took // 4, self.draw.randrange(50_000, 300_000))
        self.flows.append(
            FlowRow(
                id=id,
                stage=stage,
                src=src,
                dst=dst,
                src_server=server(src),
                dst_server=server(dst) if dst >= 0 else None,
                size_bytes=size,
                batch=batch,
                request=request,
                layer=layer,
                coflow=coflow,
                deadline_ns=deadline,
                submit_ns=start,
                permit_ns=permit,
                lane_wait_ns=0,
                finish_ns=start + took,
                level_first=ladder[0],
                level_last=ladder[-1],
                promotions=len(ladder) - 1,
                path=path(src, dst) if ports is None else ports,
                verified=True if self.draw.random() < 0.1 else None,
            )
        )
        return start + took

    def span(self, rank: int, kind: str, batch: str, layer: int, start: int, end: int) -> None:
        self.spans.append(
            SpanRow(
                rank=rank,
                kind=kind,
                label=f"layer {layer}",
                batch=batch,
                layer=layer,
                start_ns=start,
                end_ns=end,
            )
        )

    def layer(self, batch: str, ranks: tuple[int, ...], index: int, start: int, slow: float) -> int:
        """Add S1, compute and all-to-all of one layer on every rank; return when the layer ended."""
        ready = []
        victim = (ranks[0] + 4) % 8
        for rank in ranks:
            took = int(self.draw.uniform(0.5, 3.0) * MS * slow)
            arrived = self.flow(
                Stage.KV_REUSE,
                victim,
                rank,
                max(0, start - 2 * MS),
                took,
                size=4_000_000,
                batch=batch,
                layer=index,
            )
            begin = max(start, arrived)
            self.span(rank, "s1_wait", batch, index, start, begin)
            self.span(rank, "compute", batch, index, begin, begin + 4 * MS)
            ready.append(begin + 4 * MS)
        took = int(self.draw.uniform(1.5, 3.0) * MS * slow)
        end = max(ready) + took
        for rank, since in zip(ranks, ready, strict=True):
            ports = (f"{server(rank)}->s1", *(f"s1->{server(p)}" for p in ranks if p != rank))
            self.flow(
                Stage.COLLECTIVE,
                rank,
                -1,
                since,
                end - since,
                size=12_000_000,
                batch=batch,
                layer=index,
                coflow=f"{batch}.l{index}",
                ports=ports,
            )
            self.span(rank, "collective", batch, index, since, end)
        return end


def serving_record(
    policy: str = "mfs",
    *,
    seed: int = 7,
    requests: int = 40,
    layers: int = 8,
    slow: float = 1.0,
    fidelity: Fidelity | None = None,
) -> RunRecord:
    """A serving run. `slow` stretches every network time; the last request fails."""
    run = _Run(seed, promotes=policy != "fair")
    free = {"p0": 0, "p1": 0}
    for first in range(0, requests, 2):
        unit = list(UNITS)[(first // 2) % 2]
        ranks, batch = UNITS[unit], f"b{first // 2}"
        arrivals = [first * 45 * MS, first * 45 * MS + 20 * MS]
        start = max(free[unit], arrivals[1])
        end = start
        last_p2d = {first: start, first + 1: start}
        for index in range(layers):
            end = run.layer(batch, ranks, index, end, slow)
            for request, arrival in zip((first, first + 1), arrivals, strict=True):
                decode = DECODE[request % 2]
                done = run.flow(
                    Stage.P2D,
                    ranks[request % 4],
                    decode,
                    end,
                    int(run.draw.uniform(3, 25) * MS * slow),
                    size=8_000_000,
                    batch=batch,
                    layer=index,
                    request=request,
                    deadline=arrival + 240 * MS,
                )
                last_p2d[request] = max(last_p2d[request], done)
        free[unit] = end
        for request, arrival in zip((first, first + 1), arrivals, strict=True):
            p2d = max(end, last_p2d[request])
            failed = request == requests - 1
            if not failed:
                run.span(DECODE[request % 2], "decode", batch, layers, p2d, p2d + 9 * MS)
            run.requests.append(
                RequestRow(
                    request=request,
                    slo_class="default",
                    status=RequestStatus.FAILED if failed else RequestStatus.COMPLETED,
                    unit=unit,
                    batch=batch,
                    decode_rank=DECODE[request % 2],
                    prompt_tokens=2048,
                    new_tokens=1024,
                    local_tokens=512,
                    remote_tokens=512,
                    arrival_ns=arrival,
                    start_ns=start,
                    prefill_end_ns=None if failed else end,
                    p2d_end_ns=None if failed else p2d,
                    first_token_ns=None if failed else p2d + 9 * MS,
                    ttft_ns=None if failed else p2d + 9 * MS - arrival,
                    slo_ns=240 * MS,
                    unloaded_ttft_ns=80 * MS,
                )
            )
    duration = max(flow.finish_ns for flow in run.flows)
    return RunRecord(
        policy=policy,
        fabric="mininet",
        requests=tuple(run.requests),
        flows=tuple(run.flows),
        decisions=tuple(run.decisions),
        spans=tuple(run.spans),
        links=_link_samples(run.flows, duration),
        progress=(),
        permit_latency_ms=tuple(run.draw.uniform(0.4, 3.0) for _ in range(200)),
        fidelity=fidelity or faithful(),
        facts={"open_vswitch": "3.1.0", "datapath": "netdev"},
        queues={"h1->s1": [{"level": 0, "prio": 0, "ceil_bps": 50_000_000}]},
        duration_ns=duration,
        wall_s=31.5,
        caches=_caches(run.requests),
    )


def _caches(requests: list[RequestRow]) -> tuple[CacheRow, ...]:
    """Blocks of 64 tokens. Each request misses as many tokens as it finds on its replica."""
    rows = []
    for unit in sorted({row.unit for row in requests if row.unit is not None}):
        mine = [row for row in requests if row.unit == unit]
        local = sum(row.local_tokens for row in mine)
        remote = sum(row.remote_tokens for row in mine)
        rows.append(
            CacheRow(
                unit=unit,
                requests=len(mine),
                prompt_tokens=sum(row.prompt_tokens for row in mine),
                local_blocks=local // 64,
                remote_blocks=remote // 64,
                missed_blocks=local // 64,
                local_tokens=local,
                remote_tokens=remote,
                missed_tokens=local,
                evicted_blocks=7,
            )
        )
    return tuple(rows)


def _link_samples(flows: list[FlowRow], duration: int) -> tuple[LinkSample, ...]:
    """Counters every 20 ms, as if each flow sent evenly from permit to finish (bytes_scale 0.001)."""
    step = 20 * MS
    rows = []
    for port in sorted({port for flow in flows for port in flow.path}):
        under_way = [flow for flow in flows if port in flow.path]
        arrived = [0.0] * 8
        for time in range(0, duration + step, step):
            for flow in under_way:
                if flow.finish_ns <= time:
                    arrived[flow.level_last] += flow.size_bytes * 0.001
            under_way = [flow for flow in under_way if flow.finish_ns > time]
            sent = list(arrived)
            for flow in under_way:
                if flow.permit_ns < time:
                    part = (time - flow.permit_ns) / (flow.finish_ns - flow.permit_ns)
                    sent[flow.level_last] += flow.size_bytes * 0.001 * part
            rows.append(
                LinkSample(
                    time_ns=time,
                    port=port,
                    sent_bytes=tuple(int(value) for value in sent),
                    backlog_bytes=(0,) * 8,
                    drops=(0,) * 8,
                )
            )
    return tuple(rows)


def micro_record(policy: str = "mfs") -> RunRecord:
    """Two flows into h3, 20 MB each at 1 Gb/s: "high" is sent first, "low" is promoted at 0.1 s."""
    shared = "s1->h3"
    flows = tuple(
        FlowRow(
            id=id,
            stage=Stage.P2D,
            src=src,
            dst=2,
            src_server=server(src),
            dst_server="h3",
            size_bytes=20_000_000,
            batch=None,
            request=None,
            layer=None,
            coflow=None,
            deadline_ns=deadline,
            submit_ns=0,
            permit_ns=1 * MS,
            lane_wait_ns=0,
            finish_ns=finish,
            level_first=first,
            level_last=last,
            promotions=int(first is not last),
            path=(f"{server(src)}->s1", shared),
            verified=True,
        )
        for id, src, deadline, finish, first, last in (
            ("high", 0, None, 161 * MS, Level.P2, Level.P2),
            ("low", 1, 400 * MS, 321 * MS, Level.P6, Level.P1),
        )
    )
    decisions = (
        Decision(time_ns=0, flow="high", level_from=None, level_to=Level.P2, reason="S2"),
        Decision(time_ns=0, flow="low", level_from=None, level_to=Level.P6, reason="MLU 0.01"),
        Decision(
            time_ns=100 * MS,
            flow="low",
            level_from=Level.P6,
            level_to=Level.P1,
            reason="MLU 0.53 >= 0.50",
        ),
    )
    progress = tuple(
        ProgressRow(time_ns=t * MS, flow=id, received_bytes=min(20_000_000, max(0, t - since) * 125_000))
        for id, since in (("high", 1), ("low", 161))
        for t in range(0, 330, 10)
    )
    return RunRecord(
        policy=policy,
        fabric="mininet",
        requests=(),
        flows=flows,
        decisions=decisions,
        spans=(),
        links=_link_samples(list(flows), 330 * MS),
        progress=progress,
        permit_latency_ms=(0.8, 1.1),
        fidelity=faithful(),
        facts={},
        queues={},
        duration_ns=330 * MS,
        wall_s=3.0,
    )
