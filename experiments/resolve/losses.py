"""What a scenario with losses of units or decode workers may not have: what they do to it is not modelled."""

from collections.abc import Iterator

from experiments.errors import UserError
from experiments.scenario.scenario import Scenario
from testbed.faults import DecodeLoss, Loss, UnitLoss, losses_of
from testbed.job import Job, ReuseRule
from testbed.serving.routing.decode_choices import make_decode_choice
from testbed.serving.routing.routers import make_router
from workers.options import ComputeMode


def check_losses(scenario: Scenario, job: Job) -> None:
    """Raise `UserError`, naming the key, if the losses of `job` do not go with the rest of it.

    Or if none of its units or decode workers is left at some time.
    """
    losses = losses_of(job.faults)
    if not losses:
        return
    for problem in (*_problems(scenario, job, losses), *_none_left(job, losses)):
        raise UserError(f"scenario {scenario.name}: {problem}")


def check_elastic(scenario: Scenario, job: Job) -> None:
    """Raise `UserError`, naming the key, if `job` could not go on without some of its units."""
    for problem in _inelastic(scenario, job):
        raise UserError(f"--elastic: scenario {scenario.name}: {problem}")


def _inelastic(scenario: Scenario, job: Job) -> Iterator[str]:
    units, workers = job.placement.units, job.placement.decode_workers
    if job.flows:
        yield "workload: single flows need each of their servers"
        return
    losses: list[Loss] = []
    if len(units) > 1:
        losses.append(UnitLoss(unit=next(iter(units)), from_ns=0, to_ns=None))
    if len(workers) > 1:
        losses.append(DecodeLoss(worker=0, from_ns=0, to_ns=None))
    if not losses:
        yield "units: there is one prefill unit and one decode worker, and both are needed"
    if job.workers.compute is ComputeMode.MODEL:
        yield "workers.compute: real layers (model) need all ranks"
    if job.background is not None:
        yield "background: its transfers need all of their ranks"
    yield from _problems(scenario, job, tuple(losses))


def _problems(scenario: Scenario, job: Job, losses: tuple[Loss, ...]) -> Iterator[str]:
    serving = job.serving
    in_vain = "cannot be together with faults that lose units or decode workers"
    if serving.chunk_tokens is not None:
        yield f"serving.chunk_tokens: split prompts {in_vain}"
    if serving.preempt_layers is not None:
        yield f"serving.preempt_layers: preemption {in_vain}"
    if serving.fetch_early:
        yield f"serving.fetch: S1 that starts in the queue {in_vain}"
    if scenario.serving.batches_of is not None:
        yield f"serving.batches_of: given batches {in_vain}"
    if any(request.after is not None for request in job.requests):
        yield f"workload: turns that wait for an answer {in_vain}: the answer may never come"
    router = make_router(serving, seed=job.seed, token_ns=1.0)
    if router.costs or router.ports:
        yield f"serving.router: {serving.router} expects where requests will run, and {in_vain}"
    if make_decode_choice(serving).ports:
        yield f"serving.decode: {serving.decode_choice} expects where KV will go, and {in_vain}"
    if serving.reuse is ReuseRule.CHEAPER:
        yield f"serving.reuse: {serving.reuse.value} expects where requests will run, and {in_vain}"
    if any(isinstance(loss, DecodeLoss) for loss in losses):
        if serving.decode_batch is not None:
            yield "serving.decode_batch: later tokens of a lost decode worker are not modelled (faults)"
        if serving.decode_background:
            yield "serving.decode_background: that of a lost decode worker is not modelled (faults)"


def _none_left(job: Job, losses: tuple[Loss, ...]) -> Iterator[str]:
    """At which time all units, or all decode workers, are lost: it is when one of them is."""
    for loss in losses:
        gone = {
            other.unit if isinstance(other, UnitLoss) else other.worker
            for other in losses
            if type(other) is type(loss)
            and other.from_ns <= loss.from_ns
            and (other.to_ns is None or loss.from_ns < other.to_ns)
        }
        there = job.placement.units if isinstance(loss, UnitLoss) else job.placement.decode_workers
        if len(gone) == len(there):
            what = "prefill unit" if isinstance(loss, UnitLoss) else "decode worker"
            yield f"faults: with {loss.words}, no {what} is left"
