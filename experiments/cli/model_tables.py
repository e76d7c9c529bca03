"""`mfs models`: tables of what follows from the shapes of models."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from testbed.models import sizes as models
from testbed.models.shape import ModelShape

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


def numbers(shape: ModelShape) -> dict[str, Any]:
    """Return the numbers of `details`, by name.

    Unless the name says otherwise, FLOPs are per token and layer, and weights per layer.
    """
    kinds = [
        f"{len(layers)} {'sparse' if models.is_sparse(shape, layers[0]) else 'dense'}"
        for layers in models.layer_kinds(shape)
    ]
    scores = models.score_flops(shape, new_tokens=_TEN_THOUSAND_TOKENS, prefix_tokens=0)
    found: dict[str, Any] = {
        "layers": ", ".join(kinds),
        "parameters, without embeddings": models.total_parameters(shape),
        "parameters a token passes": models.active_parameters(shape),
        "bytes of these": models.active_parameter_bytes(shape),
        "window": shape.window or "none",
        "KV of a token, B": models.kv_bytes_per_token(shape),
        "KV of a token in a layer, B": models.kv_bytes_per_token_layer(shape),
        "hidden state of a token, B": models.activation_bytes_per_token(shape),
        "projections, FLOPs": models.projection_flops_per_token(shape),
        "scores of a prompt of 10,000 tokens, FLOPs": scores,
        "attention weights, B": models.attention_weight_bytes(shape),
    }
    if not models.is_moe(shape) or shape.dense_layers:
        found["MLP of a dense layer, FLOPs"] = models.mlp_flops_per_token(shape)
        found["MLP weights, B"] = models.mlp_weight_bytes(shape)
    if models.is_moe(shape):
        found["experts, of which a token visits"] = f"{shape.experts}, {shape.top_k}"
        found["dispatch of a token, B"] = models.all_to_all_bytes_per_token(shape)
        found["gate, FLOPs"] = models.gate_flops_per_token(shape)
        found["visit of an expert, FLOPs"] = models.expert_flops_per_visit(shape)
        found["expert weights, B"] = models.expert_weight_bytes(shape)
        if shape.shared_ffn:
            found["shared expert, FLOPs"] = models.shared_flops_per_token(shape)
            found["shared expert weights, B"] = models.shared_weight_bytes(shape)
    return found


def _table(first: str, *headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
