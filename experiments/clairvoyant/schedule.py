"""A schedule that knows the whole run: a key for each piece of its work, and flows served by their keys."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from controller.flow import Level, Stage
from controller.policy import NoOptions, Policy, Verdict
from controller.view import ActiveFlow, View
from testbed.record import FlowRow

_LAYER: Final = 1e-7
"""What a layer adds to a key if lower layers go first: far less than the smallest step of a search."""


class Item(NamedTuple):
    """What a schedule gives one key to: the flows of a stage in a part of the layers.

    `owner` is the batch of collectives (S2), and the request of S1 and S3. `part` counts from 0.
    """

    stage: Stage
    owner: str
    part: int


class Schedule(NamedTuple):
    """The key of each item: the smallest goes first, and equal keys share fairly.

    With `by_layer`, the lower layer goes first among equal keys.
    """

    keys: Mapping[Item, float]
    by_layer: bool


class Parts(NamedTuple):
    """How the `layers` of a model are divided: into `into` parts, as equal as can be."""

    layers: int
    into: int

    def item(self, stage: Stage, *, batch: str | None, request: str | None, layer: int | None) -> Item:
        owner = batch if stage is Stage.COLLECTIVE else request
        return Item(stage, owner or "", (layer or 0) * self.into // self.layers)

    def items(self, rows: Iterable[FlowRow]) -> list[Item]:
        """Return the items of a run whose flows are `rows`, sorted."""
        found = {
            self.item(
                row.stage,
                batch=row.batch,
                request=None if row.request is None else str(row.request),
                layer=row.layer,
            )
            for row in rows
        }
        return sorted(found, key=lambda item: (item.stage.value, item.owner, item.part))


def static_orders(items: Iterable[Item]) -> dict[str, Schedule]:
    """Return a schedule for each order of the stages, ties included, with and without layers in order."""
    items = list(items)
    stages = (Stage.KV_REUSE, Stage.COLLECTIVE, Stage.P2D)
    ranks = {tuple(_dense(code // 9, code // 3 % 3, code % 3)) for code in range(27)}
    found = {}
    for rank in sorted(ranks):
        level = dict(zip(stages, rank, strict=True))
        name = " < ".join(
            " = ".join(stage.value for stage in stages if level[stage] == number)
            for number in range(max(rank) + 1)
        )
        keys = {item: float(level[item.stage]) for item in items}
        found[name] = Schedule(keys, by_layer=False)
        found[f"{name}, lower layers first"] = Schedule(keys, by_layer=True)
    return found


def _dense(*ranks: int) -> list[int]:
    """Return `ranks` without gaps: 0, 2, 2 becomes 0, 1, 1."""
    order = sorted(set(ranks))
    return [order.index(rank) for rank in ranks]


class Scheduled(Policy):
    """Serves the flows that a schedule was made for by its keys, on a fabric that keeps an exact order."""

    name = "clairvoyant"
    summary = "a schedule made for one run"
    reads_ports = False
    reads_progress = False

    def __init__(self, schedule: Schedule, item_of: Callable[..., Item]) -> None:
        super().__init__(NoOptions())
        self._schedule, self._item_of = schedule, item_of

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        facts = flow.flow
        item = self._item_of(facts.stage, batch=facts.batch, request=facts.request, layer=facts.layer)
        key = self._schedule.keys[item]
        if self._schedule.by_layer:
            key += _LAYER * (facts.layer or 0)
        return Verdict(Level.P3, "as planned", order=key)
