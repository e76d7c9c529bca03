"""`mfs workload synth`: making a trace with given statistics, in Mooncake's format.

Lengths are lognormal and drawn in strata: of n lengths, one comes from each n-th part of the distribution,
so that even a few have its mean and spread. Arrivals are a Poisson process or bursts
(`workloads.arrivals.BurstyProcess`), stretched to match the rate exactly.

Prompts reuse the beginnings of earlier prompts. There is a fixed number of texts. A prompt begins with one
of them, drawn with a popularity of rank**-zipf, takes whole blocks from it, and goes on with blocks of its
own. The number of blocks that it takes depends on how much is missing from the reuse that was asked for.
"""

import itertools
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist

import msgspec

from controller.units import NS_PER_MS, NS_PER_S
from experiments.atomic_file import replacing
from experiments.errors import UserError
from experiments.trace_formats.rows import BLOCK_TOKENS
from experiments.trace_formats.values import MAX_TOKENS
from experiments.traces.describe import Description
from experiments.workloads import arrivals
from experiments.workloads.workload import Workload
from testbed.job import Request

REUSE_TOLERANCE = 0.02
"""Allowed difference between the share of reuse that was asked for and the actual one."""

_P99 = NormalDist().inv_cdf(0.99)
_WINDOWS_S = (1, 10)


class LogNormal(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts whose logarithm is normal with this mean and standard deviation."""

    mu: float
    sigma: float

    @property
    def mean(self) -> float:
        return math.exp(self.mu + self.sigma**2 / 2)

    @property
    def cv(self) -> float:
        return math.sqrt(math.expm1(self.sigma**2))


def by_mean(mean: float, cv: float) -> LogNormal:
    """Fit a mean and a coefficient of variation: sigma**2 = ln(1 + cv**2), mu = ln mean - sigma**2 / 2."""
    sigma = math.sqrt(math.log1p(cv**2))
    return LogNormal(mu=math.log(mean) - sigma**2 / 2, sigma=sigma)


def by_percentiles(p50: float, p99: float) -> LogNormal:
    """Fit a median and a 99th percentile: ln p99 - ln p50 is 2.326 sigma."""
    return LogNormal(mu=math.log(p50), sigma=math.log(p99 / p50) / _P99)


def lengths(
    name: str,
    otherwise: LogNormal,
    *,
    mean: float | None = None,
    cv: float | None = None,
    p50: float | None = None,
    p99: float | None = None,
) -> LogNormal:
    """Return the lengths that the options ask for; what they leave open is as in `otherwise`.

    Raises `UserError` for options that contradict each other.
    """
    if p50 is None and p99 is None:
        return by_mean(otherwise.mean if mean is None else mean, otherwise.cv if cv is None else cv)
    if p50 is None or p99 is None or mean is not None or cv is not None:
        raise UserError(f"--{name}-p50 and --{name}-p99 go together, without --{name}-mean and --{name}-cv")
    if p99 < p50:
        raise UserError(f"--{name}-p99 {p99:g}: is below --{name}-p50 {p50:g}")
    return by_percentiles(p50, p99)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The statistics to give a trace.

    `dispersion` is the dispersion in long windows, 1 for a Poisson process; `burst_s` is the mean length of
    a burst (`arrivals.bursty_process`). `reuse` is a share of prompt tokens.
    """

    requests: int
    rate_rps: float
    dispersion: float = 1.0
    burst_s: float | None = None
    prompt: LogNormal
    output: LogNormal
    reuse: float = 0.0
    prefixes: int = 16
    zipf: float = 1.0
    seed: int = 1


def like(found: Description, requests: int | None = None, rate_rps: float | None = None) -> Wanted:
    """Return the statistics of a described trace, with another number of requests or rate if given.

    Raises `UserError` for a trace without a rate, whose requests all arrive at once, if none is given.
    """
    rate = found.arrivals.rate_rps or rate_rps
    if rate is None:
        raise UserError("--like: all requests of the trace arrive at once, so it has no rate; give --rate")
    dispersion, burst_s = _bursts_like(found, rate)
    return Wanted(
        requests=found.requests if requests is None else requests,
        rate_rps=rate_rps or rate,
        dispersion=dispersion,
        burst_s=burst_s,
        prompt=by_mean(found.prompt_tokens.mean, found.prompt_tokens.cv),
        output=by_mean(max(found.output_tokens.mean, 1.0), found.output_tokens.cv),
        reuse=found.reuse.token_share,
        prefixes=max(1, found.reuse.prefixes),
        zipf=1.0 if found.reuse.zipf is None else found.reuse.zipf,
    )


def _bursts_like(found: Description, rate: float) -> tuple[float, float | None]:
    """Return the dispersion in long windows and the length of bursts that explain what both windows show.

    The part of the dispersion beyond 1 grows with the window t like 1 - (1 - exp(-r t)) / (r t). The ratio
    of this part in the two windows gives r, by bisection; the longer window then gives the limit. Windows
    of 10 s say nothing about bursts that last much longer, so r is at least 0.1 per second.
    """
    short, long = (found.arrivals.dispersion.get(window) for window in _WINDOWS_S)
    if long is None or long <= 1:
        return 1.0, None
    ratio = max(0.0, (short or 1.0) - 1) / (long - 1)
    low, high = 0.1, 1e3
    for _ in range(60):
        r = math.sqrt(low * high)
        shown = _window_factor(r * _WINDOWS_S[0]) / _window_factor(r * _WINDOWS_S[1])
        low, high = (r, high) if shown < ratio else (low, r)
    r = math.sqrt(low * high)
    dispersion = 1 + (long - 1) / _window_factor(r * _WINDOWS_S[1])
    # From dispersion - 1 = 2 rate (1 - busy) / (busy r) and r = 1 / (burst_s (1 - busy)).
    busy = 1 / (1 + (dispersion - 1) * r / (2 * rate))
    return dispersion, 1 / (r * (1 - busy))


def _window_factor(times: float) -> float:
    """Return the share of the dispersion beyond 1 that shows in a window of this many relaxation times.

    In a relaxation time a process forgets whether it is in a burst: it is the inverse of the sum of both
    rates of change.
    """
    return 1 + math.expm1(-times) / times


def check(wanted: Wanted) -> None:
    """Raise `UserError` for statistics that no trace in this format can have."""
    for name, asked in (("prompt", wanted.prompt), ("output", wanted.output)):
        if not asked.sigma < 5:
            raise UserError(f"--{name}-cv, --{name}-p99: no trace has lengths that differ so widely")
        if not 1 <= asked.mean <= MAX_TOKENS:
            raise UserError(
                f"--{name}-mean, --{name}-p50: {asked.mean:.4g} tokens on average; allowed is 1 .. "
                f"{MAX_TOKENS}"
            )
    if wanted.dispersion < 1:
        raise UserError(f"--dispersion {wanted.dispersion:g}: 1 is a Poisson process, more makes bursts")
    if wanted.burst_s is not None and wanted.dispersion == 1:
        raise UserError("--burst-s needs a --dispersion above 1")


def synthesise(wanted: Wanted) -> Iterator[Request]:
    """Yield the requests in order of arrival, the first at 0. `wanted` must have passed `check`."""
    draw = random.Random(f"{wanted.seed}:synth")
    prompts = _lengths(wanted.prompt, wanted.requests, draw)
    outputs = _lengths(wanted.output, wanted.requests, draw)
    prompt_blocks = _blocks(prompts, wanted, draw)
    for i, (time_ns, prompt, output, blocks) in enumerate(
        zip(_times_ns(wanted), prompts, outputs, prompt_blocks, strict=True)
    ):
        yield Request(
            id=i,
            arrival_ns=time_ns,
            prompt_tokens=prompt,
            output_tokens=output,
            blocks=blocks,
            block_tokens=BLOCK_TOKENS,
        )


def write_trace(path: Path, requests: Iterator[Request]) -> None:
    """Write `requests` in Mooncake's format. A last block that is not full gets an id of its own."""
    unique = itertools.count(2**62)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for request in requests:
            ids = list(request.blocks)
            if request.prompt_tokens % BLOCK_TOKENS:
                ids.append(next(unique))
            row = {
                "timestamp": round(request.arrival_ns / NS_PER_MS),
                "input_length": request.prompt_tokens,
                "output_length": request.output_tokens,
                "hash_ids": ids,
            }
            file.write(json.dumps(row) + "\n")


def _lengths(lengths: LogNormal, count: int, draw: random.Random) -> list[int]:
    normal = NormalDist(lengths.mu, lengths.sigma) if lengths.sigma > 0 else None
    found = []
    for i in range(count):
        share = (i + draw.random()) / count
        value = lengths.mu if normal is None else normal.inv_cdf(min(max(share, 1e-12), 1 - 1e-12))
        found.append(min(MAX_TOKENS, max(1, round(math.exp(min(value, 700.0))))))
    draw.shuffle(found)
    return found


def _times_ns(wanted: Wanted) -> list[int]:
    bare = Workload(
        requests=tuple(
            Request(
                id=i, arrival_ns=0, prompt_tokens=1, output_tokens=1, blocks=(), block_tokens=BLOCK_TOKENS
            )
            for i in range(wanted.requests)
        )
    )
    if wanted.dispersion > 1:
        process = arrivals.bursty_process(wanted.rate_rps, wanted.dispersion, wanted.burst_s)
        placed = arrivals.bursty(bare, process, wanted.seed)
    else:
        placed = arrivals.poisson(bare, wanted.rate_rps, wanted.seed)
    last = placed.requests[-1].arrival_ns
    span_ns = (wanted.requests - 1) / wanted.rate_rps * NS_PER_S
    return [round(request.arrival_ns * span_ns / last) if last else 0 for request in placed.requests]


def _blocks(prompts: list[int], wanted: Wanted, draw: random.Random) -> Iterator[tuple[int, ...]]:
    """Yield the ids of each prompt's full blocks. The share `wanted.reuse` of all tokens is reused."""
    popularity = list(itertools.accumulate(rank**-wanted.zipf for rank in range(1, wanted.prefixes + 1)))
    texts: list[list[int]] = [[] for _ in range(wanted.prefixes)]
    fresh = itertools.count()
    prompt_tokens = reused_tokens = 0
    for tokens in prompts:
        full = tokens // BLOCK_TOKENS
        prompt_tokens += tokens
        missing = max(0.0, wanted.reuse * prompt_tokens - reused_tokens)
        text = texts[draw.choices(range(wanted.prefixes), cum_weights=popularity)[0]] if wanted.reuse else []
        common = min(full, round(missing / BLOCK_TOKENS))
        reused_tokens += min(common, len(text)) * BLOCK_TOKENS
        text.extend(next(fresh) for _ in range(common - len(text)))
        yield (*text[:common], *(next(fresh) for _ in range(full - common)))
