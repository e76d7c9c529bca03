"""How events reach the scheduler: each of them, or only those that the simulated fabric hands over.

The simulated fabric does its part in C++ (`testbed/simulation/core/transport_levels.cpp`). Here it is done in
Python, with the same calls of the scheduler and of the loads of ports.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from controller.flow import SERVING_STAGES, Assignment, Flow, Stage
from controller.policy import Verdict
from controller.ports import PortLoads
from controller.scheduler import Scheduler
from experiments.bench.scheduler_events import Event, EventKind

Answer = Verdict | Sequence[Assignment]
"""What comes back from an event: a first verdict, or what changes."""

_NOTHING: Final[Answer] = ()


def asks_less(scheduler: Scheduler, batch_id: str) -> bool:
    """Whether `Grouped` differs from `EveryEvent`, judged by one active batch. Changes `scheduler`."""
    return scheduler.hand_over_bytes() or any(scheduler.standing(stage, batch_id) for stage in SERVING_STAGES)


class EveryEvent:
    """Each event is a call of the scheduler, as on the emulated fabric.

    `calls` take the time of an event and its arguments.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.calls: dict[EventKind, Callable[..., Answer]] = {
            EventKind.BATCH: scheduler.batch_started,
            EventKind.LAYER: scheduler.layer_advanced,
            EventKind.SUBMIT: scheduler.submit,
            EventKind.PROGRESS: scheduler.progress,
            EventKind.COMPLETION: scheduler.completion,
            EventKind.TICK: scheduler.tick,
        }

    def reaches_a_hook(self, event: Event) -> bool:
        """Whether a hook of the policy will be called for `event`, which comes next."""
        view = self._scheduler.view
        match event.kind, event.arguments:
            case EventKind.LAYER, (str(batch), int(layer)):
                return layer > view.batches[batch].layer
            case EventKind.PROGRESS, (str(flow_id), int(bytes_left)):
                return bytes_left < view.flows[flow_id].bytes_left
        return True


class _Moving(NamedTuple):
    """A flow whose bytes are counted here, with its bytes left as they were counted last."""

    flow: Flow
    bytes_left: int


class Grouped(EveryEvent):
    """Flows of a stage of a batch share a standing verdict, and progress that nobody reads is kept back.

    A flow with a standing verdict never reaches the scheduler. Its bytes are counted in the loads of ports if
    the policy reads them, and so are those of all flows if the scheduler hands that over.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self._loads: PortLoads | None = scheduler.loads
        self._hears_progress = not scheduler.hand_over_bytes()
        self._verdicts: dict[tuple[Stage, str | None], Verdict | None] = {}
        self._standing: set[str] = set()
        self._moving: dict[str, _Moving] = {}
        self.calls |= {
            EventKind.SUBMIT: self._submit,
            EventKind.PROGRESS: self._progress,
            EventKind.COMPLETION: self._completion,
        }

    def reaches_a_hook(self, event: Event) -> bool:
        match event.kind, event.arguments:
            case EventKind.SUBMIT, (Flow() as flow,):
                return self._scheduler.standing(flow.stage, flow.batch) is None
            case EventKind.PROGRESS, (str(flow_id), _):
                heard = self._hears_progress and flow_id not in self._standing
                return heard and super().reaches_a_hook(event)
            case EventKind.COMPLETION, (str(flow_id),):
                return flow_id not in self._standing
        return super().reaches_a_hook(event)

    def _submit(self, now_ns: int, flow: Flow) -> Answer:
        key = flow.stage, flow.batch
        try:
            verdict = self._verdicts[key]
        except KeyError:
            verdict = self._verdicts[key] = self._scheduler.standing(flow.stage, flow.batch)
        if self._loads is not None and (verdict is not None or not self._hears_progress):
            self._moving[flow.id] = _Moving(flow, flow.size_bytes)
            self._loads.submitted(flow)
        if verdict is None:
            return self._scheduler.first_verdict(now_ns, flow)
        self._standing.add(flow.id)
        return verdict

    def _progress(self, now_ns: int, flow_id: str, bytes_left: int) -> Answer:
        moving = self._moving.get(flow_id)
        if moving is None:
            if self._hears_progress and flow_id not in self._standing:
                return self._scheduler.progress(now_ns, flow_id, bytes_left)
            return _NOTHING
        flow, before = moving
        if self._loads is not None and bytes_left < before:
            self._loads.moved(now_ns, flow, before_bytes=before, after_bytes=bytes_left)
            self._moving[flow_id] = _Moving(flow, bytes_left)
        return _NOTHING

    def _completion(self, now_ns: int, flow_id: str) -> Answer:
        moving = self._moving.pop(flow_id, None)
        if moving is not None and self._loads is not None:
            self._loads.finished(now_ns, moving.flow, before_bytes=moving.bytes_left)
        if flow_id in self._standing:
            self._standing.remove(flow_id)
            return _NOTHING
        return self._scheduler.completion(now_ns, flow_id)
