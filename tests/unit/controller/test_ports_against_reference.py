"""The compiled loads of ports against a plain reference, bit for bit, over random events."""

import math
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.flow import Batch, Flow, Stage
from controller.ports import BLOCKS_NOW, RHO_CAP, PortLoads
from controller.urgency import mlu
from controller.view import ActiveBatch

BPS = {"a": 400_000_000_000, "b": 25_000_000_001, "c": 8}
WINDOW_NS = 1_000_003
DEADLINES_NS = (None, 5, 1_000, 2**52)

ports = st.sampled_from(tuple(BPS))
few = st.integers(0, 3)
# Loads times sizes go beyond 64 bits.
byte_counts = st.one_of(st.integers(0, 20), st.integers(0, 2**40))
loads = st.dictionaries(ports, byte_counts)
shares = st.floats(0, 1)
# A window is a million nanoseconds: one step may go beyond the 500 windows after which weights are rescaled.
waits_ns = st.one_of(st.integers(0, 50), st.integers(0, 800 * WINDOW_NS))
submits = st.tuples(st.just("submit"), st.sampled_from(Stage), few, few, few, byte_counts, loads)
others = st.tuples(st.sampled_from(("move", "finish", "aside", "back", "wait")), few, shares, waits_ns)
events = st.lists(st.one_of(submits, others), max_size=40)


class Reference:
    """The definitions, written down without any care for speed. It keeps all flows and all that moved.

    What moved is forgotten as the compiled code forgets it, because exponentials do not multiply exactly.
    """

    def __init__(self) -> None:
        self.left: dict[str, tuple[Flow, int]] = {}
        self.aside: set[str] = set()
        self.early: dict[str, dict[str, dict[int, int]]] = {port: {} for port in BPS}
        self.gone = dict.fromkeys(BPS, 0.0)
        self.origin_ns = 0

    def weight(self, now_ns: int) -> float:
        windows = (now_ns - self.origin_ns) / WINDOW_NS
        if windows > 500:
            self.gone = {port: gone * math.exp(-windows) for port, gone in self.gone.items()}
            self.origin_ns, windows = now_ns, 0.0
        return math.exp(windows)

    def submitted(self, flow: Flow) -> None:
        self.left[flow.id] = (flow, flow.size_bytes)
        for layers in self._layers_of(flow):
            layer = _waiting_layer(flow)
            layers[layer] = layers.get(layer, 0) + 1

    def moved(self, now_ns: int, flow: Flow, after_bytes: int) -> None:
        _, before_bytes = self.left[flow.id]
        self.left[flow.id] = (flow, after_bytes)
        if flow.stage is not Stage.P2D:
            weight = self.weight(now_ns)
            for port in flow.load:
                self.gone[port] += (_part(flow, port, before_bytes) - _part(flow, port, after_bytes)) * weight

    def finished(self, now_ns: int, flow: Flow) -> None:
        self.moved(now_ns, flow, 0)
        del self.left[flow.id]
        self.aside.discard(flow.id)
        for layers in self._layers_of(flow):
            layers[_waiting_layer(flow)] -= 1
        self.early = {
            port: {
                batch: {layer: count for layer, count in layers.items() if count}
                for batch, layers in batches.items()
                if any(layers.values())
            }
            for port, batches in self.early.items()
        }

    def due(self, port: str, until_ns: int) -> tuple[int, int]:
        due = [
            _part(flow, port, left)
            for flow, left in self.left.values()
            if flow.stage is Stage.P2D
            and flow.id not in self.aside
            and flow.deadline_ns is not None
            and flow.deadline_ns <= until_ns
            and port in flow.load
        ]
        return sum(due), len(due)

    def rho(self, port: str, now_ns: int) -> float:
        waiting = sum(
            _part(flow, port, left)
            for flow, left in self.left.values()
            if flow.stage is not Stage.P2D and port in flow.load
        )
        weight = self.weight(now_ns)
        return min(RHO_CAP, (waiting + self.gone[port] / weight) * 8 * 10**9 / (BPS[port] * WINDOW_NS))

    def _layers_of(self, flow: Flow) -> Iterator[dict[int, int]]:
        if flow.stage is not Stage.P2D and flow.batch is not None:
            for port in flow.load:
                yield self.early[port].setdefault(flow.batch, {})


def _waiting_layer(flow: Flow) -> int:
    return flow.layer if flow.stage is Stage.KV_REUSE and flow.layer is not None else BLOCKS_NOW


def _part(flow: Flow, port: str, bytes_left: int) -> int:
    return flow.load[port] * bytes_left // flow.size_bytes if flow.size_bytes else 0


def _in_order(early: Mapping[str, Mapping[int, int]]) -> list[tuple[str, Mapping[int, int]]]:
    """The order of batches counts: a policy names the first that fits."""
    return list(early.items())


@settings(max_examples=300, deadline=None)
@given(events)
def test_loads_equal_a_plain_count_bit_for_bit(sequence: list[tuple]) -> None:
    compiled, plain, now_ns = PortLoads(BPS, rho_window_ns=WINDOW_NS), Reference(), 0
    for number, (kind, *what) in enumerate(sequence):
        if kind == "submit":
            stage, batch, layer, deadline, size, load = what
            flow = Flow(
                id=f"f{number}",
                stage=stage,
                size_bytes=size,
                batch=f"b{batch}" if batch else None,
                layer=layer or None,
                deadline_ns=DEADLINES_NS[deadline],
                load=load,
            )
            compiled.submitted(flow)
            plain.submitted(flow)
            continue
        which, share, wait_ns = what
        if kind == "wait" or not plain.left:
            now_ns += wait_ns
        else:
            flow, left = list(plain.left.values())[which % len(plain.left)]
            after = int(left * share)
            match kind:
                case "move":
                    compiled.moved(now_ns, flow, before_bytes=left, after_bytes=after)
                    plain.moved(now_ns, flow, after)
                case "finish":
                    compiled.finished(now_ns, flow, before_bytes=left)
                    plain.finished(now_ns, flow)
                case "aside":
                    compiled.put_aside(flow, left)
                    if flow.stage is Stage.P2D:
                        plain.aside.add(flow.id)
                case _:
                    compiled.take_back(flow, left)
                    plain.aside.discard(flow.id)
        for port in BPS:
            for until_ns in (4, 5, 999, 10**6, 2**60):
                assert compiled.due(port, until_ns) == plain.due(port, until_ns)
                assert compiled.due_bytes(port, until_ns) == plain.due(port, until_ns)[0]
            assert _in_order(compiled.early_layers(port)) == _in_order(plain.early[port])
            assert compiled.rho(port, now_ns) == plain.rho(port, now_ns)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(loads, byte_counts), min_size=1, max_size=4),
    st.dictionaries(ports, byte_counts, min_size=1),
    st.one_of(st.none(), st.floats(0, RHO_CAP)),
    st.booleans(),
)
def test_the_highest_mlu_is_that_of_the_first_port_on_which_it_is_highest(
    due: list[tuple[dict[str, int], int]], path: dict[str, int], rho: float | None, own: bool
) -> None:
    """S3 due by 1,000, and as much S2 as makes rho differ between ports; all at time 10."""
    compiled = PortLoads(BPS, rho_window_ns=WINDOW_NS)
    for number, (load, size) in enumerate(due):
        for stage in (Stage.P2D, Stage.COLLECTIVE):
            name = f"{stage}{number}"
            compiled.submitted(Flow(id=name, stage=stage, size_bytes=size, load=load, deadline_ns=1_000))
    flow = Flow(id="it", stage=Stage.P2D, size_bytes=7, load=path, deadline_ns=1_000)
    compiled.submitted(flow)
    found = []
    for port in path:
        due_bytes, flows = (path[port] * 3 // 7, 1) if own else compiled.due(port, 1_000)
        share = compiled.rho(port, 10) if rho is None else rho
        found.append((mlu(due_bytes, 990, BPS[port], share), port, due_bytes, flows, share))
    highest = max(value for value, *_ in found)
    first = next(one for one in found if one[0] == highest)
    assert compiled.highest_mlu(10, flow, rho, 3 if own else None) == first


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(few, few, loads), max_size=8),
    loads,
    st.dictionaries(few.map(lambda batch: f"b{batch}"), few),
    few,
)
def test_the_first_batch_with_an_early_flow_of_an_rli_is_found_port_by_port(
    early: list[tuple[int, int, dict[str, int]]], path: dict[str, int], at: dict[str, int], ahead: int
) -> None:
    """S1 of layer 1 and up, and S2 instead of layer 0."""
    compiled = PortLoads(BPS, rho_window_ns=WINDOW_NS)
    for number, (batch, layer, load) in enumerate(early):
        stage = Stage.KV_REUSE if layer else Stage.COLLECTIVE
        compiled.submitted(
            Flow(id=f"f{number}", stage=stage, size_bytes=1, batch=f"b{batch}", layer=layer, load=load)
        )
    fitting = (
        batch
        for port in path
        for batch, layers in compiled.early_layers(port).items()
        for layer in layers
        if batch in at and ahead == (0 if layer == BLOCKS_NOW else max(0, layer - at[batch]))
    )
    batches = {name: ActiveBatch(Batch(id=name, layers=4, requests=()), layer) for name, layer in at.items()}
    assert compiled.first_early(path, batches, ahead) == next(fitting, None)


def test_products_beyond_64_bits_are_exact() -> None:
    """A third of the flow is left, so a third of the 2**41 bytes: their product has 81 bits."""
    compiled, size = PortLoads(BPS, rho_window_ns=WINDOW_NS), 3 * 2**40
    flow = Flow(id="f", stage=Stage.P2D, size_bytes=size, load={"a": 2**41}, deadline_ns=9)
    compiled.submitted(flow)
    compiled.moved(0, flow, before_bytes=size, after_bytes=2**40)
    assert compiled.due_bytes("a", 9) == 2**41 // 3


def test_more_bytes_than_fit_are_refused_and_not_wrapped() -> None:
    compiled = PortLoads(BPS, rho_window_ns=WINDOW_NS)
    flow = Flow(id="f", stage=Stage.COLLECTIVE, size_bytes=2**62, load={"a": 2**62})
    compiled.submitted(flow)
    with pytest.raises(OverflowError):
        compiled.submitted(flow)


def test_what_finishes_without_having_been_submitted_is_refused() -> None:
    compiled = PortLoads(BPS, rho_window_ns=WINDOW_NS)
    for stage in Stage:
        flow = Flow(id="f", stage=stage, size_bytes=4, load={"a": 4}, batch="b", deadline_ns=9)
        with pytest.raises(RuntimeError):
            compiled.finished(0, flow, before_bytes=4)


def test_a_load_may_be_any_mapping_and_its_ports_must_be_known() -> None:
    compiled = PortLoads(BPS, rho_window_ns=WINDOW_NS)
    assert compiled.takes({"a": 0, "b": 3})
    assert not compiled.takes({"a": -1})
    assert not compiled.takes({"d": 1})
    with pytest.raises(KeyError, match="d"):
        compiled.submitted(Flow(id="f", stage=Stage.P2D, size_bytes=1, load={"d": 1}, deadline_ns=9))
