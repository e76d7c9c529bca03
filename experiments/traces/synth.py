"""Making a trace with given statistics, in Mooncake's format: `mfs workload synth`.

Lengths are lognormal, drawn in strata: of n lengths one comes from each n-th part of the distribution, so
that few of them have its mean and spread already. Arrivals are a Poisson process, or bursts
(`workloads.arrivals.BurstyProcess`), stretched to the rate exactly.

Prompts reuse what prompts before them began with. There is a number of long texts; a prompt begins with
one of them, drawn with a popularity of rank**-zipf, takes from it what it reuses, in whole blocks, and goes
on with blocks of its own. How much it takes follows what is missing of the reuse that was asked for.
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
from experiments.trace_formats.mooncake import BLOCK_TOKENS
from experiments.trace_formats.values import MAX_TOKENS
from experiments.traces.describe import Description
from experiments.workloads import arrivals
from experiments.workloads.workload import Workload
from testbed.job import Request

REUSE_TOLERANCE = 0.02
"""Between the share of reuse that is asked for and the one that is there."""

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
    """By mean and coefficient of variation: sigma**2 is ln(1 + cv**2), mu is ln mean - sigma**2 / 2."""
    sigma = math.sqrt(math.log1p(cv**2))
    return LogNormal(mu=math.log(mean) - sigma**2 / 2, sigma=sigma)


def by_percentiles(p50: float, p99: float) -> LogNormal:
    """By median and 99th percentile: ln p99 - ln p50 is 2.326 sigma."""
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
    """The lengths that options say; what they leave open is as in `otherwise`.

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

    `dispersion` is that of long windows, 1 for a Poisson process, `burst_s` how long a burst is on average
    (`arrivals.bursty_process`). `reuse` is a share of prompt tokens.
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
    """The statistics of a trace that was described, with the number of requests and the rate given, if any.

    Raises `UserError` for one without a rate (all of its requests arrive at once) if none is given.
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
    """Dispersion in long windows, and length of bursts, with which both windows show what was found.

    The part beyond 1 grows with the window t like 1 - (1 - exp(-r t)) / (r t): the ratio of the two gives r,
    by bisection, then either of them the limit. Windows of 10 s say nothing of bursts that last much longer:
    r is at least a tenth per second, whatever the ratio is.
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
    """The share of the dispersion beyond 1 that shows in a window of so many relaxation times.

    A relaxation time is that in which a process forgets whether it is in a burst: the inverse of the sum of
    both rates of change.
    """
    return 1 + math.expm1(-times) / times


def check(wanted: Wanted) -> None:
    """Raises `UserError` for statistics that no trace can have, or not one in this format."""
    for name, asked in (("prompt", wanted.prompt), ("output", wanted.output)):
        if not asked.sigma < 5:
            raise UserError(f"--{name}-cv, --{name}-p99: that wide a spread of lengths is beyond any trace")
        if not 1 <= asked.mean <= MAX_TOKENS:
            raise UserError(
                f"--{name}-mean, --{name}-p50: {asked.mean:.4g} tokens on average; allowed is 1 .. "
                f"{MAX_TOKENS}"
            )
    if wanted.dispersion < 1:
        raise UserError(f"--dispersion {wanted.dispersion:g}: 1 is a Poisson process, more are bursts")
    if wanted.burst_s is not None and wanted.dispersion == 1:
        raise UserError("--burst-s has a meaning with a --dispersion above 1 only")


def synthesise(wanted: Wanted) -> Iterator[Request]:
    """The requests, in order of arrival, the first at 0. `check` has to have passed."""
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
    """Write `requests` in Mooncake's format; a last block that is not full has an id that no other has."""
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
    """The ids of each prompt's full blocks, such that the share that was there before is `wanted.reuse`."""
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
