"""`mfs models`: tables of what follows from the shapes of models."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from rich.table import Table

from experiments.fitted_table import FittedTable
from testbed.models import sizes as models
from testbed.models.mixers import mixer_of
from testbed.models.shape import ModelShape, Recurrent

_BILLION = 1e9
_TEN_THOUSAND_TOKENS = 10_000


def overview(shapes: Iterable[ModelShape]) -> Table:
    """Return a table with a line per model. Parameters do not include embeddings."""
    table = _table("", "layers", "experts", "total", "active", "KV", "state", "dispatch")
    table.add_row("", "", "", "10⁹", "10⁹", "B/token", "B/token", "B/token")
    for shape in shapes:
        table.add_row(
            shape.name,
            " + ".join(str(len(layers)) for layers in models.layer_kinds(shape)),
            f"{shape.top_k} of {shape.experts}" if models.is_moe(shape) else "-",
            f"{models.total_parameters(shape) / _BILLION:.1f}",
            f"{models.active_parameters(shape) / _BILLION:.1f}",
            str(models.kv_bytes_per_token(shape)),
            str(models.activation_bytes_per_token(shape)),
            str(models.all_to_all_bytes_per_token(shape)),
        )
    return table


def details(shape: ModelShape) -> Table:
    """Return a table of everything that follows from one shape, one number per line."""
    table = _table("", "")
    table.show_header = False
    table.add_row("model", shape.name)
    for name, value in numbers(shape).items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    return table


def notes(shape: ModelShape) -> str:
    """Return what the numbers of a model leave out or assume, one sentence a line; empty: nothing."""
    return "\n".join(f"note: {note}" for note in shape.notes)


def numbers(shape: ModelShape) -> dict[str, Any]:
    """Return the numbers of `details`, by name.

    Unless the name says otherwise, FLOPs are per token and layer, and weights per layer.
    """
    kinds = [f"{len(layers)} {_kind(shape, layers[0])}" for layers in models.layer_kinds(shape)]

    def of_layers(value: Callable[[int], int]) -> int | str:
        return _of_layers(shape, value)

    found: dict[str, Any] = {
        "layers": ("\n" if shape.other_layers else ", ").join(kinds),
        "parameters, without embeddings": models.total_parameters(shape),
        "parameters a token passes": models.active_parameters(shape),
        "bytes of these": models.active_parameter_bytes(shape),
        "window": shape.window or "none",
        "KV of a token, B": models.kv_bytes_per_token(shape),
        "KV of a token in a layer, B": of_layers(lambda n: models.kv_bytes_per_token_layer(shape, n)),
        "hidden state of a token, B": models.activation_bytes_per_token(shape),
        "projections, FLOPs": of_layers(lambda n: models.projection_flops_per_token(shape, n)),
        "scores of a prompt of 10,000 tokens, FLOPs": of_layers(
            lambda n: models.score_flops(shape, n, new_tokens=_TEN_THOUSAND_TOKENS, prefix_tokens=0)
        ),
        "attention weights, B": of_layers(lambda n: models.attention_weight_bytes(shape, n)),
    }
    if shape.other_layers:
        del found["window"]  # `layers` says which have one
    if state := models.state_bytes_per_request(shape):
        found["recurrent states of a request, B"] = state
    if not models.is_moe(shape) or shape.dense_layers:
        found["MLP of a dense layer, FLOPs"] = models.mlp_flops_per_token(shape)
        found["MLP weights, B"] = models.mlp_weight_bytes(shape)
    if models.is_moe(shape):
        found["experts, of which a token visits"] = f"{shape.experts}, {shape.top_k}"
        found["dispatch of a token, B"] = models.all_to_all_bytes_per_token(shape)
        found["gate, FLOPs"] = models.gate_flops_per_token(shape)
        found["visit of an expert, FLOPs"] = models.expert_flops_per_visit(shape)
        found["expert weights, B"] = models.expert_weight_bytes(shape)
        if shape.expert_hidden:
            found["hidden state of routed experts, B"] = shape.expert_hidden * shape.bytes_per_element
        if shape.shared_ffn or shape.expert_hidden:
            found["shared expert, FLOPs"] = models.shared_flops_per_token(shape)
            found["shared expert weights, B"] = models.shared_weight_bytes(shape)
    return found


def _kind(shape: ModelShape, layer: int) -> str:
    """What a layer is: sparse or dense, and what it has if layers differ in it."""
    feeding = "sparse" if models.is_sparse(shape, layer) else "dense"
    if not models.has_feed_forward(shape, layer):
        feeding = "without feed-forward"
    if not shape.other_layers:
        return feeding
    mixer = mixer_of(shape, layer)
    if isinstance(mixer, Recurrent):
        return f"{feeding}, {mixer.kind}"
    window = "" if mixer.window is None else f", window of {mixer.window}"
    return f"{feeding}{window}{', shared KV' if mixer.shares_kv else ''}"


def _of_layers(shape: ModelShape, value: Callable[[int], int]) -> int | str:
    """The value of a layer; if layers differ in it, each value with the number of layers that have it."""
    counts: Counter[int] = Counter()
    for layers in models.layer_kinds(shape):
        counts[value(layers[0])] += len(layers)
    if len(counts) == 1:
        return next(iter(counts))
    return "\n".join(f"{number:,} in {count} layers" for number, count in counts.items())


def _table(first: str, *headings: str) -> Table:
    table = FittedTable(gap=2)
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
